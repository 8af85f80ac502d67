// Tensor cores: the product of one warp, and the loads that feed it (PTX ISA, "mma.m16n8k16" and "ldmatrix").
//
// With `g = lane / 4`, `q = lane % 4`, two neighbouring values in one register, the lower in the lower half:
//   A [16, 16]: a[0] at (g, 2q), a[1] at (g + 8, 2q), a[2] at (g, 2q + 8), a[3] at (g + 8, 2q + 8)
//   B [16, 8]:  b[0] at rows 2q and 2q + 1 of column g, b[1] eight rows below
//   D [16, 8]:  d[0], d[1] at (g, 2q) and (g, 2q + 1), d[2], d[3] eight rows below
#pragma once
#include "device.cuh"

#ifdef __CUDACC__
// `d += a b`, accumulated in f32.
DEVICE void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t* b) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four matrices of 8x8 from shared memory: lane `8 i + j` gives the address of row `j` of matrix `i`; `r[i]` receives two neighbours of
// row `g` of it, or, transposed, of column `g`.
DEVICE void load_matrices(uint32_t (&r)[4], const bf16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(uint32_t(__cvta_generic_to_shared(row)))
                 : "memory");
}

DEVICE void load_matrices_transposed(uint32_t (&r)[4], const bf16* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(uint32_t(__cvta_generic_to_shared(row)))
                 : "memory");
}
#endif

// Two neighbours in one register.
DEVICE uint32_t pair(bf16 low, bf16 high) {
    return uint32_t(__bfloat16_as_ushort(low)) | uint32_t(__bfloat16_as_ushort(high)) << 16;
}

DEVICE uint32_t pair(float low, float high) { return pair(__float2bfloat16(low), __float2bfloat16(high)); }

// A [16, 16] from the two tiles of D [16, 8] that a product left side by side.
DEVICE void as_left(uint32_t (&a)[4], const float (&low)[4], const float (&high)[4]) {
    a[0] = pair(low[0], low[1]);
    a[1] = pair(low[2], low[3]);
    a[2] = pair(high[0], high[1]);
    a[3] = pair(high[2], high[3]);
}
