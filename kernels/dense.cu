// Dense layers: Y = X B with what comes before it done while X is loaded and what comes after it done while Y is stored.
//
// X [rows][inputs] and B [inputs][outputs] row-major in float32; inputs and outputs are multiples of 32. One block a tile
// of Y, ROWS x COLUMNS; a thread holds TALL x 4 of it. With SPLIT, where nothing but latency counts, four groups
// of threads share a tile: each takes every fourth slab of inputs, then their sums are added in order. A sum goes over inputs
// in rising order with fused multiply-adds; its order depends on the number of atoms alone.
#include "update.cuh"

#if LARGE
#define ROWS 128
#define COLUMNS 64
#define DEPTH 16
#define TALL 8
#define GROUPS 1
#else
#define ROWS 16
#define COLUMNS 32
#define DEPTH 32
#define TALL 1
#define GROUPS (SPLIT ? 4 : 1)
#endif
#define GROUP_THREADS ((ROWS / TALL) * (COLUMNS / 4))
#define DENSE_THREADS (GROUPS * GROUP_THREADS)

// `load(row, k)` gives X[row][k … k+3], `store(row, column, sums)` takes Y[row][column … column+3].
template <class Load, class Store>
__device__ inline void product(const Parameters& p, int rows, int inputs, int outputs, const float* b, Load load, Store store)
{
    if (p.control->status != 0) return;
    const int A_LOADS = ROWS * DEPTH / 4 / GROUP_THREADS, B_LOADS = DEPTH * COLUMNS / 4 / GROUP_THREADS;
    __shared__ __align__(16) float a_tiles[GROUPS][DEPTH][ROWS + 4];
    __shared__ __align__(16) float b_tiles[GROUPS][DEPTH][COLUMNS];
    int group = threadIdx.x / GROUP_THREADS, thread = threadIdx.x % GROUP_THREADS;
    float(*a_tile)[ROWS + 4] = a_tiles[group];
    float(*b_tile)[COLUMNS] = b_tiles[group];
    int first_row = blockIdx.x * ROWS, first_column = blockIdx.y * COLUMNS;
    int across = thread % (COLUMNS / 4) * 4, down = thread / (COLUMNS / 4) * TALL;
    float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float4 sums[TALL], a_next[A_LOADS], b_next[B_LOADS];
#pragma unroll
    for (int i = 0; i < TALL; i++) sums[i] = zero;

    auto fetch = [&](int from) {
#pragma unroll
        for (int n = 0; n < A_LOADS; n++) {
            int t = thread + n * GROUP_THREADS, row = first_row + t / (DEPTH / 4), k = from + t % (DEPTH / 4) * 4;
            a_next[n] = row < rows && k < inputs ? load(row, k) : zero;
        }
#pragma unroll
        for (int n = 0; n < B_LOADS; n++) {
            int t = thread + n * GROUP_THREADS, k = from + t / (COLUMNS / 4), c = first_column + t % (COLUMNS / 4) * 4;
            b_next[n] = c < outputs && k < inputs ? *(const float4*)(b + (long long)k * outputs + c) : zero;
        }
    };
    fetch(group * DEPTH);
    // All groups go round equally often; beyond the last input there are zeros.
    for (int slab = 0; slab < inputs; slab += GROUPS * DEPTH) {
#pragma unroll
        for (int n = 0; n < A_LOADS; n++) {
            int t = thread + n * GROUP_THREADS, row = t / (DEPTH / 4), k = t % (DEPTH / 4) * 4;
            a_tile[k][row] = a_next[n].x;
            a_tile[k + 1][row] = a_next[n].y;
            a_tile[k + 2][row] = a_next[n].z;
            a_tile[k + 3][row] = a_next[n].w;
        }
#pragma unroll
        for (int n = 0; n < B_LOADS; n++) {
            int t = thread + n * GROUP_THREADS;
            *(float4*)&b_tile[t / (COLUMNS / 4)][t % (COLUMNS / 4) * 4] = b_next[n];
        }
        __syncthreads();
        // The next slab travels while this one is used.
        if (slab + GROUPS * DEPTH < inputs) fetch(slab + (GROUPS + group) * DEPTH);
#pragma unroll
        for (int k = 0; k < DEPTH; k++) {
            float4 right = *(const float4*)&b_tile[k][across];
#pragma unroll
            for (int i = 0; i < TALL; i++) {
                float left = a_tile[k][down + i];
                sums[i].x = fmaf(left, right.x, sums[i].x);
                sums[i].y = fmaf(left, right.y, sums[i].y);
                sums[i].z = fmaf(left, right.z, sums[i].z);
                sums[i].w = fmaf(left, right.w, sums[i].w);
            }
        }
        __syncthreads();
    }
#if GROUPS > 1
    // TALL is 1: a thread has one float4. The slabs are no longer needed.
    float4* parts = (float4*)&b_tiles[0][0][0];
    if (group > 0) parts[(group - 1) * GROUP_THREADS + thread] = sums[0];
    __syncthreads();
    if (group > 0) return;
    for (int g = 0; g < GROUPS - 1; g++) {
        float4 part = parts[g * GROUP_THREADS + thread];
        sums[0] = make_float4(sums[0].x + part.x, sums[0].y + part.y, sums[0].z + part.z, sums[0].w + part.w);
    }
#endif
    int column = first_column + across;
    if (column >= outputs) return;
#pragma unroll
    for (int i = 0; i < TALL; i++)
        if (first_row + down + i < rows) store(first_row + down + i, column, sums[i]);
}

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
