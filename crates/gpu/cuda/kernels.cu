// Every kernel by name: one module. A new one: a header beside this file, a line here, its arguments in ../src/arguments.
#include "adamw.cuh"
#include "attention.cuh"
#include "condition.cuh"
#include "feed.cuh"
#include "gate.cuh"
#include "gate_blocks.cuh"
#include "gate_load.cuh"
#include "gelu.cuh"
#include "groupnorm.cuh"
#include "loss.cuh"
#include "maps.cuh"
#include "noise.cuh"
#include "patches.cuh"
#include "plain.cuh"
#include "reductions.cuh"
#include "residual.cuh"
#include "reverse.cuh"
#include "softmax.cuh"

EXPORT_BOTH(residual_norm, THREADS, ResidualNorm, residual_norm)
EXPORT_BOTH(norm_backward, THREADS, NormBackward, norm_backward)
EXPORT_BOTH(gelu_forward, THREADS, Gelu, gelu_forward)
EXPORT_BOTH(gelu_backward, THREADS, Gelu, gelu_backward)
EXPORT_BOTH(gather, THREADS, Patches, gather)
EXPORT_BOTH(unpatchify, THREADS, Patches, unpatchify)
EXPORT_BOTH(patchify, THREADS, Patches, patchify)
EXPORT_BOTH(column_sum, THREADS, ColumnSum, column_sum)
EXPORT(add_parts_f32, THREADS, AddParts, add_parts)
EXPORT_BOTH(modulation_gradient, THREADS, ModulationGradient, modulation_gradient)
EXPORT_BOTH(gate_gradient, THREADS, GateGradient, gate_gradient)
EXPORT_BOTH(entry_weight_gradient, THREADS, EntryGradient, entry_weight_gradient)
EXPORT_BOTH(prompt_gradient, THREADS, EntryGradient, prompt_gradient)
EXPORT_BOTH(vector_gradient, THREADS, EntryGradient, vector_gradient)
EXPORT_BOTH(timestep_features, THREADS, Features, timestep_features)
EXPORT_BOTH(silu_forward, THREADS, Silu, silu_forward)
EXPORT_BOTH(silu_backward, THREADS, Silu, silu_backward)
EXPORT_BOTH(label_sum, THREADS, Label, label_sum)
EXPORT_BOTH(label_gradient, THREADS, LabelGradient, label_gradient)
EXPORT(normals_f32, THREADS, Normals, normals)
EXPORT(q_sample_f32, THREADS, QSample, q_sample)
EXPORT(loss_f32, THREADS, Loss, loss)
EXPORT_BOTH(adamw, THREADS, AdamW, adamw)
EXPORT(average_f32, THREADS, Average, average)
EXPORT_BOTH(gate_input, THREADS, GateInput, gate_input)
EXPORT(gate_forward_f32, THREADS, GateForward, gate_forward)
EXPORT(gate_sums_f32, THREADS, GateSums, gate_sums)
EXPORT(gate_backward_f32, THREADS, GateBackward, gate_backward)
EXPORT(gate_gather_f32, THREADS, GateGather, gate_gather)
EXPORT(gate_noise_f32, THREADS, GateNoise, gate_noise)
EXPORT(gate_columns_f32, THREADS, GateColumns, gate_columns)
EXPORT(gate_blocks_f32, THREADS, GateBlocks, gate_blocks)
EXPORT(gate_load_f32, THREADS, GateLoad, gate_load)
EXPORT(begin_f32, THREADS, Begin, begin)
EXPORT(examples_f32, THREADS, Examples, examples)
EXPORT(accumulate_f32, THREADS, Accumulate, accumulate)
EXPORT(note_f32, THREADS, Note, note)
EXPORT(advance_f32, THREADS, Advance, advance)
EXPORT(reverse_f32, THREADS, Reverse, reverse)
EXPORT(spread_f32, THREADS, Spread, spread)
EXPORT_BOTH(images_to_map, THREADS, Images, images_to_map)
EXPORT_BOTH(map_to_images, THREADS, Images, map_to_images)
EXPORT_BOTH(gather_windows, THREADS, Windows, gather_windows)
EXPORT_BOTH(pool_windows, THREADS, Pool, pool_windows)
EXPORT_BOTH(copy_columns, THREADS, Columns, copy_columns)
EXPORT_BOTH(mean_places, THREADS, Means, mean_places)
EXPORT_BOTH(resize_map, THREADS, Resize, resize_map)
EXPORT_BOTH(add_maps, THREADS, AddMaps, add_maps)
EXPORT_BOTH(channel_moments, THREADS, GroupNorm, channel_moments)
EXPORT_BOTH(group_statistics, THREADS, GroupNorm, group_statistics)
EXPORT_BOTH(group_normalise, THREADS, GroupNorm, group_normalise)
EXPORT_BOTH(softmax_rows, THREADS, Softmax, softmax_rows)

#define EXPORT_ATTENTION(W)                                                                           \
    EXPORT(attention_forward_w##W##_f32, ATTENTION_THREADS, Attention<float>, plain_forward<W>)       \
    EXPORT(attention_backward_w##W##_f32, ATTENTION_THREADS, Attention<float>, plain_backward<W>)     \
    EXPORT(attention_forward_w##W##_bf16, ATTENTION_THREADS, Attention<bf16>, attention_forward<W>)   \
    EXPORT(attention_backward_w##W##_bf16, ATTENTION_THREADS, Attention<bf16>, attention_backward<W>)
EXPORT_ATTENTION(16)
EXPORT_ATTENTION(32)
EXPORT_ATTENTION(64)
EXPORT_ATTENTION(72)
