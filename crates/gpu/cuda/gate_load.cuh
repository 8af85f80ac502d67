// The smooth load loss of a gate that keeps the highest prompts under noise: `probability_of_being_kept` of `patches/src/balance.rs` on a GPU
// (Shazeer et al. 2017). Prompt `n` is kept with probability `p = Phi((clean - hurdle) / deviation)` if its own noise were drawn anew, the
// hurdle being the highest noisy logit that it has to beat: that of rank `kept` where it is above that one, else that of rank `kept - 1`.
#pragma once
#include "gate.cuh"

struct GateLoad {
    Scores scores;      // with noise
    float* d_logits;    // [G, R, N] of the noisy logits; afterwards of the clean ones, with the loss's added
    float* d_deviation; // [G, R, N] of the noise's deviation, written
    double* load;       // [R] sums over prompts of `p`, averaged over the groups
    float slope;        // what a probability of a group counts in the loss
    int groups, kept;
};

// The logit and the number of the prompt of a rank, which all lanes receive.
struct Ranked {
    float logit;
    int prompt;
    DEVICE Ranked(const float (&logits)[LANE_PROMPTS], const int (&ranks)[LANE_PROMPTS], int prompts, int wanted) : logit(-INFINITY), prompt(0) {
        each_prompt(prompts, [&](int k, int own) {
            if (ranks[k] == wanted) logit = logits[k], prompt = own;
        });
        logit = warp_max(logit);
        for (int apart = WARP / 2; apart > 0; apart /= 2) prompt += __shfl_xor_sync(~0u, prompt, apart);
    }
};

// One block of threads per row, whose warps take the groups in turn.
DEVICE void gate_load(const GateLoad& a) {
    const Scores& s = a.scores;
    int row = blockIdx.x, n = s.prompts;
    double load = 0.0;
    for (int group = warp(); group < a.groups; group += WARPS) {
        size_t first = (size_t(group) * s.rows + row) * n;
        float clean[LANE_PROMPTS], logit[LANE_PROMPTS];
        int ranks[LANE_PROMPTS];
        for (float& v : logit) v = -INFINITY;
        each_prompt(n, [&](int k, int prompt) {
            clean[k] = s.clean(group, row, prompt);
            logit[k] = clean[k] + s.draw(group, row, prompt) * s.deviates(row, prompt);
        });
        // outside of `each_prompt`: all lanes shuffle
#pragma unroll
        for (int k = 0; k < LANE_PROMPTS; k++) ranks[k] = rank(logit, logit[k], k * WARP + lane());
        Ranked last_kept(logit, ranks, n, a.kept - 1), first_left(logit, ranks, n, a.kept);
        float to_left = 0.0f, to_kept = 0.0f, sum = 0.0f;
        each_prompt(n, [&](int k, int prompt) {
            bool above = logit[k] > first_left.logit;
            float deviation = s.deviates(row, prompt), x = (clean[k] - (above ? first_left.logit : last_kept.logit)) / deviation;
            float density = a.slope * 0.3989422804f * expf(-0.5f * x * x) / deviation, from = a.d_logits[first + prompt];
            sum += 0.5f * (1.0f + erff(x * 0.7071067812f));
            (above ? to_left : to_kept) -= density;
            a.d_logits[first + prompt] = from + density;
            a.d_deviation[first + prompt] = from * s.draw(group, row, prompt) - density * x;
        });
        to_left = warp_sum(to_left), to_kept = warp_sum(to_kept), sum = warp_sum(sum);
        if (lane() == 0) load += sum;
        each_prompt(n, [&](int, int prompt) {
            float more = prompt == first_left.prompt ? to_left : prompt == last_kept.prompt ? to_kept : 0.0f;
            if (more == 0.0f) return;
            a.d_logits[first + prompt] += more;
            a.d_deviation[first + prompt] += more * s.draw(group, row, prompt);
        });
    }
    load = block_sum(load, reinterpret_cast<double*>(shared_memory()));
    if (threadIdx.x == 0) a.load[row] = load / a.groups;
}
