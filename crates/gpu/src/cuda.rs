//! The machine that is a GPU: one stream, the kernels' module, products by cuBLASLt, and steps captured as graphs.
//!
//! **This file has never run.** It is type-checked without a GPU (`just check-cuda kernels`); the schedule and the kernels that it launches run in the
//! emulator. The driver and cuBLASLt are loaded when a device is opened.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

use cudarc::cublaslt::{result as lt, sys as lt_sys};
use cudarc::driver::{CudaContext, CudaGraph, CudaStream, DriverError, result, sys};

use crate::launch::{HEAD_WIDTHS, MAX_TOKENS, attention_shared};
use crate::machine::{Address, Error, Grid, Machine, Matrix, Precision, Product};

/// `cuda/kernels.cu` for several architectures, as the build script left it; its header holds whole words.
#[repr(align(64))]
struct Image<const N: usize>([u8; N]);

const FATBIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin"));
static KERNELS: Image<{ FATBIN.len() }> = Image(*include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin")));
/// Bytes that cuBLASLt may use while it multiplies: what Hopper's kernels ask for.
const WORKSPACE: usize = 32 << 20;
/// Most alignment worth telling cuBLASLt of.
const MAX_ALIGNMENT: u32 = 256;

fn failed(doing: impl Into<String>) -> impl FnOnce(DriverError) -> Error {
    let doing = doing.into();
    move |error| Error::Machine { doing, reason: error.to_string() }
}

fn failed_product(error: lt::CublasError) -> Error {
    Error::Machine { doing: "a matrix product".into(), reason: error.to_string() }
}

/// A GPU.
pub struct Cuda {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    module: sys::CUmodule,
    /// Kernels by name, found when first launched.
    functions: RefCell<HashMap<String, sys::CUfunction>>,
    handle: lt_sys::cublasLtHandle_t,
    workspace: sys::CUdeviceptr,
    /// Prepared products by what they multiply.
    products: RefCell<HashMap<Key, Prepared>>,
}

/// What decides how a product is done.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    precision: bool,
    wide: bool,
    relu: bool,
    transposed: [bool; 2],
    bias: Address,
    sizes: [usize; 3],
    alignments: [u32; 3],
}

/// cuBLASLt's descriptions of a product, and the algorithm that it chose.
struct Prepared {
    description: lt_sys::cublasLtMatmulDesc_t,
    layouts: [lt_sys::cublasLtMatrixLayout_t; 3],
    algorithm: lt_sys::cublasLtMatmulAlgo_t,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: made by `Cuda::prepare`, destroyed once; there is nobody to tell of an error.
        unsafe {
            let _ = lt::destroy_matmul_desc(self.description);
            for layout in self.layouts {
                let _ = lt::destroy_matrix_layout(layout);
            }
        }
    }
}

/// Memory of a GPU.
pub struct Allocation {
    context: Arc<CudaContext>,
    pointer: sys::CUdeviceptr,
    bytes: usize,
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.pointer != 0 && self.context.bind_to_thread().is_ok() {
            // SAFETY: made by `Cuda::allocate`, freed once; the driver waits for what still uses it.
            let _ = unsafe { result::free_sync(self.pointer) };
        }
    }
}

impl Cuda {
    /// GPU number `ordinal`.
    ///
    /// # Errors
    /// There is no such GPU, or the kernels are not for it: its compute capability is below 8.0.
    ///
    /// # Panics
    /// There is no driver, where it is loaded and not linked.
    pub fn open(ordinal: usize) -> Result<Self, Error> {
        let doing = format!("opening cuda:{ordinal}");
        let context = CudaContext::new(ordinal).map_err(failed(&*doing))?;
        // SAFETY: one stream; buffers are not shared between streams.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(failed(&*doing))?;
        // SAFETY: the image is a fatbin.
        let module =
            unsafe { result::module::load_data(KERNELS.0.as_ptr().cast()) }.map_err(failed("loading the kernels"))?;
        let handle = lt::create_handle().map_err(failed_product)?;
        // SAFETY: the context is bound to this thread by `CudaContext::new`.
        let workspace = unsafe { result::malloc_sync(WORKSPACE) }.map_err(failed(&*doing))?;
        let functions = RefCell::new(HashMap::new());
        Ok(Self { context, stream, module, functions, handle, workspace, products: RefCell::new(HashMap::new()) })
    }

    /// Waits until everything is done.
    ///
    /// # Errors
    /// Those of what was launched.
    pub fn wait(&self) -> Result<(), Error> {
        self.stream.synchronize().map_err(failed("waiting for the GPU"))
    }

    /// The kernel called `name`; attention's may use as much shared memory as its longest sequence needs.
    fn function(&self, name: &str) -> Result<sys::CUfunction, Error> {
        if let Some(function) = self.functions.borrow().get(name) {
            return Ok(*function);
        }
        let symbol = CString::new(name).expect("a kernel's name has no zeros");
        // SAFETY: the module is loaded.
        let function = unsafe { result::module::get_function(self.module, symbol) }.map_err(failed(name))?;
        let attention = name.strip_prefix("attention_").and_then(|rest| rest.split_once("_w"));
        if let Some((direction, rest)) = attention {
            let precision = if rest.ends_with("bf16") { Precision::Bf16 } else { Precision::F32 };
            let width = HEAD_WIDTHS.into_iter().find(|width| rest.starts_with(&width.to_string()));
            let most = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
            let most = self.context.attribute(most).map_err(failed(name))?;
            let wanted =
                width.map_or(0, |width| attention_shared(precision, MAX_TOKENS, width, direction == "backward"));
            // What does not fit is refused when it is launched: shorter sequences need less.
            let bytes = most.min(wanted as i32);
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function is of this module.
            unsafe { result::function::set_function_attribute(function, attribute, bytes) }.map_err(failed(name))?;
        }
        self.functions.borrow_mut().insert(name.to_owned(), function);
        Ok(function)
    }

    /// Describes a product to cuBLASLt and asks for its best algorithm.
    ///
    /// cuBLASLt's matrices are column-major, ours row-major: it is given `out^T [columns, rows] = right^T left^T`, where a matrix as it lies
    /// is its own transpose.
    fn prepare(&self, key: &Key) -> Result<Prepared, Error> {
        let data = if key.precision { lt_sys::cudaDataType::CUDA_R_16BF } else { lt_sys::cudaDataType::CUDA_R_32F };
        let wide = lt_sys::cudaDataType::CUDA_R_32F;
        let compute = lt_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let [rows, columns, inner] = key.sizes.map(|size| size as u64);
        let layout = |kind, transposed: bool, height: u64, width: u64| {
            // a row-major [height, width] lies as a column-major [width, height]
            let (first, second) = if transposed { (height, width) } else { (width, height) };
            lt::create_matrix_layout(kind, first, second, first as i64).map_err(failed_product)
        };
        let [left, right] = key.transposed;
        let layouts = [
            layout(data, right, inner, columns)?,
            layout(data, left, rows, inner)?,
            layout(if key.wide { wide } else { data }, false, rows, columns)?,
        ];
        let description = lt::create_matmul_desc(compute, wide).map_err(failed_product)?;
        use lt_sys::cublasLtMatmulDescAttributes_t as Attribute;
        let set = |attribute, value: *const c_void, size| {
            // SAFETY: the description is alive, the value of the attribute's type.
            unsafe { lt::set_matmul_desc_attribute(description, attribute, value, size) }.map_err(failed_product)
        };
        let operation = |transposed: bool| i32::from(transposed); // CUBLAS_OP_N, CUBLAS_OP_T
        let (first, second) = (operation(right), operation(left));
        set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, (&raw const first).cast(), 4)?;
        set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, (&raw const second).cast(), 4)?;
        use lt_sys::cublasLtEpilogue_t as Epilogue;
        let epilogue = match (key.bias != Address::NULL, key.relu) {
            (false, false) => Epilogue::CUBLASLT_EPILOGUE_DEFAULT,
            (true, false) => Epilogue::CUBLASLT_EPILOGUE_BIAS,
            (false, true) => Epilogue::CUBLASLT_EPILOGUE_RELU,
            (true, true) => Epilogue::CUBLASLT_EPILOGUE_RELU_BIAS,
        };
        set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, (&raw const epilogue).cast(), size_of_val(&epilogue))?;
        if key.bias != Address::NULL {
            set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, (&raw const key.bias.0).cast(), 8)?;
            set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, (&raw const data).cast(), size_of_val(&data))?;
        }
        let preference = lt::create_matmul_pref().map_err(failed_product)?;
        use lt_sys::cublasLtMatmulPreferenceAttributes_t as Preference;
        let prefer = |attribute, value: *const c_void, size| {
            // SAFETY: the preference is alive, the value of the attribute's type.
            unsafe { lt::set_matmul_pref_attribute(preference, attribute, value, size) }.map_err(failed_product)
        };
        let [left, right, out] = &key.alignments;
        prefer(Preference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::ptr::from_ref(&WORKSPACE).cast(), 8)?;
        for (attribute, bytes) in [
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, right),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, left),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, out),
            (Preference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, out),
        ] {
            prefer(attribute, std::ptr::from_ref(bytes).cast(), 4)?;
        }
        // No sums by atomics: the same bits every time.
        let schemes = lt_sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        prefer(Preference::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, (&raw const schemes).cast(), 4)?;
        let [a, b, c] = layouts;
        // SAFETY: everything is alive.
        let found = unsafe { lt::get_matmul_algo_heuristic(self.handle, description, a, b, c, c, preference) };
        // SAFETY: destroyed once.
        unsafe { lt::destroy_matmul_pref(preference) }.map_err(failed_product)?;
        Ok(Prepared { description, layouts, algorithm: found.map_err(failed_product)?.algo })
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        self.products.borrow_mut().clear();
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: each was made by `open` and is destroyed once; there is nobody to tell of an error.
            unsafe {
                let _ = result::free_sync(self.workspace);
                let _ = lt::destroy_handle(self.handle);
                let _ = result::module::unload(self.module);
            }
        }
    }
}

/// The largest power of two that divides an address.
fn alignment(address: Address) -> u32 {
    1 << address.0.trailing_zeros().min(MAX_ALIGNMENT.trailing_zeros())
}

impl Machine for Cuda {
    type Memory = Allocation;
    type Recording = CudaGraph;

    fn allocate(&self, bytes: usize) -> Result<Allocation, Error> {
        self.context.bind_to_thread().map_err(failed("allocating"))?;
        let context = Arc::clone(&self.context);
        if bytes == 0 {
            return Ok(Allocation { context, pointer: 0, bytes });
        }
        // SAFETY: the context is bound.
        match unsafe { result::malloc_sync(bytes) } {
            Ok(pointer) => Ok(Allocation { context, pointer, bytes }),
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let advice = "another program holds the rest, or take a smaller batch".into();
                Err(Error::Memory { wanted: bytes, free: self.free()?, advice })
            }
            Err(error) => Err(failed("allocating")(error)),
        }
    }

    fn free(&self) -> Result<usize, Error> {
        self.context.mem_get_info().map(|(free, _)| free).map_err(failed("asking for free memory"))
    }

    fn address(&self, memory: &Allocation) -> Address {
        Address(memory.pointer)
    }

    fn write(&self, memory: &mut Allocation, at: usize, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        let to = memory.pointer + at as sys::CUdeviceptr;
        // SAFETY: callers write no more than they allocated. The driver has read pageable memory when this returns.
        let copied = unsafe { result::memcpy_htod_async(to, bytes, self.stream.cu_stream()) };
        copied.map_err(failed("copying to the GPU"))
    }

    fn clear(&self, memory: &mut Allocation) -> Result<(), Error> {
        if memory.bytes == 0 {
            return Ok(());
        }
        // SAFETY: as many bytes as were allocated.
        let cleared = unsafe { result::memset_d8_async(memory.pointer, 0, memory.bytes, self.stream.cu_stream()) };
        cleared.map_err(failed("clearing memory of the GPU"))
    }

    fn read(&self, memory: &Allocation, bytes: &mut [u8]) -> Result<(), Error> {
        if !bytes.is_empty() {
            // SAFETY: callers read no more than they allocated; the copy is waited for.
            let copied = unsafe { result::memcpy_dtoh_async(bytes, memory.pointer, self.stream.cu_stream()) };
            copied.map_err(failed("copying from the GPU"))?;
        }
        self.wait()
    }

    unsafe fn launch(&self, kernel: &str, grid: Grid, arguments: *const c_void, _: usize) -> Result<(), Error> {
        let function = self.function(kernel)?;
        let Grid { blocks: [x, y], threads, shared } = grid;
        let mut parameters = [arguments.cast_mut()];
        // SAFETY: the caller's promise; the driver copies the arguments before it returns.
        let launched = unsafe {
            let stream = self.stream.cu_stream();
            result::launch_kernel(function, (x, y, 1), (threads, 1, 1), shared as u32, stream, &mut parameters)
        };
        launched.map_err(failed(format!("launching {kernel}")))
    }

    unsafe fn multiply(&self, product: &Product) -> Result<(), Error> {
        let Product { left, right, out, .. } = *product;
        let key = Key {
            precision: product.precision == Precision::Bf16,
            wide: product.wide,
            relu: product.relu,
            transposed: [left.transposed, right.transposed],
            bias: product.bias,
            sizes: [product.rows, product.columns, product.inner],
            alignments: [left.address, right.address, out].map(alignment),
        };
        if !self.products.borrow().contains_key(&key) {
            let prepared = self.prepare(&key)?;
            self.products.borrow_mut().insert(key, prepared);
        }
        let products = self.products.borrow();
        let Prepared { description, layouts: [a, b, c], algorithm } = &products[&key];
        let (one, zero) = (1.0_f32, 0.0_f32);
        let pointer = |matrix: Matrix| matrix.address.0 as *const c_void;
        // SAFETY: the caller's promise.
        let done = unsafe {
            lt::matmul(
                self.handle,
                *description,
                (&raw const one).cast(),
                (&raw const zero).cast(),
                pointer(right),
                *a,
                pointer(left),
                *b,
                out.0 as *const c_void,
                *c,
                out.0 as *mut c_void,
                *c,
                algorithm,
                self.workspace as *mut c_void,
                WORKSPACE,
                self.stream.cu_stream().cast(),
            )
        };
        done.map_err(failed_product)
    }

    fn record(&self, work: &dyn Fn() -> Result<(), Error>) -> Result<CudaGraph, Error> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).map_err(failed("capturing a step"))?;
        let done = work();
        // The capture is ended whatever came of it: the stream is of no use before.
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0)).map_err(failed("capturing a step"));
        done?;
        let empty = || Error::Machine { doing: "capturing a step".into(), reason: "nothing was launched".into() };
        graph?.ok_or_else(empty)
    }

    fn replay(&self, recording: &CudaGraph) -> Result<(), Error> {
        recording.launch().map_err(failed("launching a captured step"))
    }

    fn time(&self, work: &mut dyn FnMut() -> Result<(), Error>) -> Result<f64, Error> {
        let event = || self.stream.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).map_err(failed("timing"));
        let start = event()?;
        work()?;
        let end = event()?;
        start.elapsed_ms(&end).map(f64::from).map_err(failed("timing"))
    }
}
