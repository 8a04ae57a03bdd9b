// Dense layers: Y = X B with what comes before it done while X is loaded and what comes after it done while Y is stored.
//
// X [rows][inputs] row-major in float32; inputs and outputs are multiples of 32. How `product` goes about it and how B lies is said in
// product.cuh and product_large.cuh.
#include "product.cuh"
#include "product_large.cuh"

// Four elements h become σ'(h) times their gradient.
__device__ inline void back_through(float* h, float4 g)
{
    float4 v = *(const float4*)h;
    *(float4*)h = make_float4(silu_slope(v.x) * g.x, silu_slope(v.y) * g.y, silu_slope(v.z) * g.z, silu_slope(v.w) * g.w);
}

// Y = X B + bias; no bias where the pointer is null.
extern "C" __global__ void __launch_bounds__(DENSE_THREADS)
dense(Parameters p, int rows, int inputs, int outputs, const float* b, const float* bias, const float* x, float* y)
{
    product(p, rows, inputs, outputs, b,
        [=](int row, int k) { return *(const float4*)(x + (long long)row * inputs + k); },
        [=](int row, int column, float4 sum) {
            if (bias) sum = add(*(const float4*)(bias + column), sum);
            *(float4*)(y + (long long)row * outputs + column) = sum;
        });
}

// Y += X B.
extern "C" __global__ void __launch_bounds__(DENSE_THREADS)
dense_add(Parameters p, int rows, int inputs, int outputs, const float* b, const float* x, float* y)
{
    product(p, rows, inputs, outputs, b,
        [=](int row, int k) { return *(const float4*)(x + (long long)row * inputs + k); },
        [=](int row, int column, float4 sum) {
            float4* to = (float4*)(y + (long long)row * outputs + column);
            *to = add(*to, sum);
        });
}

// Y = σ(X) B + bias.
extern "C" __global__ void __launch_bounds__(DENSE_THREADS)
dense_silu(Parameters p, int rows, int inputs, int outputs, const float* b, const float* bias, const float* x, float* y)
{
    product(p, rows, inputs, outputs, b,
        [=](int row, int k) {
            float4 v = *(const float4*)(x + (long long)row * inputs + k);
            return make_float4(silu(v.x), silu(v.y), silu(v.z), silu(v.w));
        },
        [=](int row, int column, float4 sum) {
            *(float4*)(y + (long long)row * outputs + column) = add(*(const float4*)(bias + column), sum);
        });
}

// H becomes σ'(H) (X B), [rows][outputs]: back through a layer and the activation before it.
extern "C" __global__ void __launch_bounds__(DENSE_THREADS)
dense_slope(Parameters p, int rows, int inputs, int outputs, const float* b, const float* x, float* h)
{
    product(p, rows, inputs, outputs, b,
        [=](int row, int k) { return *(const float4*)(x + (long long)row * inputs + k); },
        [=](int row, int column, float4 sum) {
            back_through(h + (long long)row * outputs + column, sum);
        });
}

// The update's first layer: Y = [q, n] B + bias, [N][2F] to [N][F]; n from the vectors, see `norm4` in update.cuh.
extern "C" __global__ void __launch_bounds__(DENSE_THREADS)
dense_norm(Parameters p, const float* b, const float* bias, const float* q, const float* vectors, float epsilon, float* y)
{
    product(p, p.atoms, 2 * FEATURES, FEATURES, b,
        [=](int row, int k) {
            if (k < FEATURES) return *(const float4*)(q + (long long)row * FEATURES + k);
            return norm4(vectors, row, k - FEATURES, epsilon);
        },
        [=](int row, int column, float4 sum) {
            *(float4*)(y + (long long)row * FEATURES + column) = add(*(const float4*)(bias + column), sum);
        });
}

// Back through the update's second layer: H becomes σ'(H) (G B), [N][3F] to [N][F]; G is the gradient of the update's
// coefficients, see `coefficient_gradient4` in update.cuh.
extern "C" __global__ void __launch_bounds__(DENSE_THREADS)
dense_gradient(Parameters p, Mixing mixing, const float* b, const float* gq, const float* gmu, const float* vectors,
               float* h, int last)
{
    product(p, p.atoms, 3 * FEATURES, FEATURES, b,
        [=](int row, int k) {
            return coefficient_gradient4(mixing, gq, gmu, vectors, row, k, last);
        },
        [=](int row, int column, float4 sum) {
            back_through(h + (long long)row * FEATURES + column, sum);
        });
}
