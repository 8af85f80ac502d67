// What a step trains on, from what the host wrote for many steps at once, and what it leaves: nothing is waited for between steps.
#pragma once
#include "exact.cuh"

// One place of a batch.
struct Place {
    uint32_t example, label, timestep;
};

// Numbers of a step: AdamW's factors of two groups, then the running average's decay and `1 - decay`.
constexpr int RATES = 8;

struct Begin {
    const uint32_t* number; // of the step; its slot is `number % slots`
    const Place* places;    // [slots, batch]
    const float* rates;     // [slots, RATES]
    uint32_t* examples;     // [rows]
    uint32_t* labels;       // [rows]
    uint32_t* timesteps;    // [rows]
    float* current;         // [RATES]
    int slots, batch, first, rows;
};

// Takes `rows` places of this step's batch from `first` on, and its rates.
DEVICE void begin(const Begin& a) {
    int row = int(thread_number()), slot = *a.number % uint32_t(a.slots);
    if (row < RATES) a.current[row] = a.rates[slot * RATES + row];
    if (row >= a.rows) return;
    Place place = a.places[size_t(slot) * a.batch + a.first + row];
    a.examples[row] = place.example;
    a.labels[row] = place.label;
    a.timesteps[row] = place.timestep;
}

struct Examples {
    const float* mean;        // [examples, n]
    const float* deviation;   // [examples, n]; null: nothing about them is random
    const float* noise;       // [rows, n]
    const uint32_t* examples; // [rows]
    float* x0;                // [rows, n]
    float scale;
    int rows, n;
};

// `x_0 = scale (mean + deviation noise)`, the bits of the CPU.
DEVICE void examples(const Examples& a) {
    size_t at = thread_number();
    if (at >= size_t(a.rows) * a.n) return;
    size_t from = size_t(a.examples[at / a.n]) * a.n + at % a.n;
    Exact x = a.mean[from];
    if (a.deviation) x = Exact(a.scale) * (x + Exact(a.deviation[from]) * Exact(a.noise[at]));
    a.x0[at] = x.v;
}

struct Accumulate {
    float* sum;          // [count]
    const float* values; // [count]
    size_t count;
    int fresh; // whether the sum begins
};

DEVICE void accumulate(const Accumulate& a) {
    size_t at = thread_number();
    if (at < a.count) a.sum[at] = a.fresh ? a.values[at] : a.sum[at] + a.values[at];
}

struct Note {
    const uint32_t* number;
    const double* terms;      // [batch, 2] squared error, variational bound
    const double* importance; // [batch]; null: there is no such loss
    const double* load;       // [batch] shares of the load loss; null: there is none
    double* losses;           // [slots, 4] their means, and the sum of the last
    int slots, batch;
};

// Means over the batch, in the order of its samples.
DEVICE void note(const Note& a) {
    int term = threadIdx.x;
    if (term >= 4) return;
    const double* from = term < 2 ? a.terms + term : term == 2 ? a.importance : a.load;
    double sum = 0.0;
    if (from)
        for (int sample = 0; sample < a.batch; sample++) sum += from[(term < 2 ? 2 : 1) * sample];
    a.losses[*a.number % uint32_t(a.slots) * 4 + term] = term < 3 ? sum / a.batch : sum;
}

struct Advance {
    uint32_t* number;
};

DEVICE void advance(const Advance& a) {
    if (thread_number() == 0) *a.number += 1;
}
