// Noising, and the diffusion loss with its gradient in closed form: `diffusion/src/loss.rs` on a GPU, in double precision as there.
#pragma once
#include "exact.cuh"

// What the loss needs of a timestep; computed on the CPU.
struct Timestep {
    double mse_weight;                         // over the elements of a sample
    double recip, recipm1;                     // sqrt(1 / alpha_bar), sqrt(1 / alpha_bar - 1)
    double mean_x0, mean_xt;                   // of the posterior
    double log_variance, range, precision;     // posterior log variance, width of the learned range, 1 / posterior variance
    float signal, spread;                      // sqrt(alpha_bar), sqrt(1 - alpha_bar)
};

struct QSample {
    const float* x0;           // [B, n]
    const float* noise;        // [B, n]
    const unsigned* timesteps; // [B]
    const Timestep* table;
    float* x_t; // [B, n]
    int batch, n;
};

// `x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise`, the bits of the CPU.
DEVICE void q_sample(const QSample& a) {
    size_t at = thread_number();
    if (at >= size_t(a.batch) * a.n) return;
    const Timestep& step = a.table[a.timesteps[at / a.n]];
    a.x_t[at] = (Exact(step.signal) * Exact(a.x0[at]) + Exact(step.spread) * Exact(a.noise[at])).v;
}

struct Loss {
    const float* x0;           // [B, n]
    const float* x_t;          // [B, n]
    const float* noise;        // [B, n]
    const float* output;       // [B, 2 n] noise, then variance values; [B, n] where the variance is not learned
    const unsigned* timesteps; // [B]
    const Timestep* table;
    float* d_output; // like output: the gradient of the step's mean loss
    double* terms;   // [B, 2] weighted squared error, variational bound in bits per dimension
    int batch, n, learned;
    int all; // samples of the whole step
};

// A term and its derivative by the variance value.
struct Term {
    double value, slope;
};

// Standard normal distribution function by its tanh approximation, and its derivative.
DEVICE Term normal_cdf(double z) {
    constexpr double SCALE = 0.79788456080286535588, CUBE = 0.044715;
    double t = tanh(SCALE * (z + CUBE * (z * z * z)));
    return {0.5 * (1.0 + t), 0.5 * (1.0 - t * t) * (SCALE * (1.0 + 3.0 * CUBE * z * z))};
}

// Negative log likelihood of the 8-bit bin of `x0`, the outermost bins open, the probability at least 1e-12.
DEVICE Term decoder(const Timestep& s, double x0, double x_t, double eps, double v) {
    double mean = s.mean_x0 * (s.recip * x_t - s.recipm1 * eps) + s.mean_xt * x_t;
    double inverse = exp(-0.5 * (s.log_variance + 0.5 * (v + 1.0) * s.range)), apart = x0 - mean;
    double upper = inverse * (apart + 1.0 / 255.0), lower = inverse * (apart - 1.0 / 255.0);
    Term above = normal_cdf(upper), below = normal_cdf(lower);
    double probability = above.value - below.value, slope = below.slope * lower - above.slope * upper;
    if (x0 < -0.999) probability = above.value, slope = -above.slope * upper;
    else if (x0 > 0.999) probability = 1.0 - below.value, slope = below.slope * lower;
    if (probability < 1e-12) return {-log(1e-12), 0.0};
    return {-log(probability), -slope / probability * 0.25 * s.range};
}

// KL of the true posterior from the predicted one.
DEVICE Term divergence(const Timestep& s, double x0, double x_t, double eps, double v) {
    double wider = 0.5 * (v + 1.0) * s.range, apart = s.mean_x0 * (x0 - (s.recip * x_t - s.recipm1 * eps));
    double ratio = exp(-wider) * (1.0 + apart * apart * s.precision);
    return {0.5 * (wider - 1.0 + ratio), 0.25 * s.range * (1.0 - ratio)};
}

// One block per sample.
DEVICE void loss(const Loss& a) {
    int sample = blockIdx.x, n = a.n;
    unsigned t = a.timesteps[sample];
    const Timestep& step = a.table[t];
    size_t image = size_t(sample) * n, out = image * (a.learned ? 2 : 1);
    double scale = 1.0 / a.all, per_element = 1.0 / (n * 0.69314718055994530942);
    float slope = float(2.0 * step.mse_weight * scale);
    double squares = 0.0, bound = 0.0;
    for (int i = threadIdx.x; i < n; i += THREADS) {
        float eps = a.output[out + i], noise = a.noise[image + i];
        a.d_output[out + i] = slope * (eps - noise);
        double apart = double(eps) - double(noise);
        squares += apart * apart;
        if (a.learned) {
            double x0 = a.x0[image + i], x_t = a.x_t[image + i], v = a.output[out + n + i];
            Term term = t == 0 ? decoder(step, x0, x_t, eps, v) : divergence(step, x0, x_t, eps, v);
            a.d_output[out + n + i] = float(term.slope * per_element * scale);
            bound += term.value;
        }
    }
    double* parts = reinterpret_cast<double*>(shared_memory());
    squares = block_sum(squares, parts);
    bound = block_sum(bound, parts);
    if (threadIdx.x == 0) {
        a.terms[2 * sample] = squares * step.mse_weight;
        a.terms[2 * sample + 1] = bound * per_element;
    }
}
