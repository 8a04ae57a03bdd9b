// Y = X B for many atoms, on tensor cores: products of TF32 numbers, see mma.cuh.
//
// One block a tile of Y, ROWS x COLUMNS; a warp makes 32 x 32 of it. X is split into hi + lo once, on its way to shared memory; B
// comes split, from the host, in the order in which lanes hold it: [outputs / 32][inputs / 8][4 tiles][32 lanes][4], for the inputs k,
// k + 1 of a lane's column hi, hi, lo, lo. A tile has eight columns; those of two tiles alternate by two, so that a lane has four
// neighbouring ones. Of each DEPTH inputs sums start from zero and are added with rounding, in rising order.
#pragma once
#include "mma.cuh"
#include "update.cuh"

#if LARGE
#define ROWS 64
#define COLUMNS 64
#define DEPTH 16
#define DENSE_THREADS 128

// `load(row, k)` gives X[row][k … k+3], `store(row, column, sums)` takes Y[row][column … column+3].
template <class Load, class Store>
__device__ inline void product(const Parameters& p, int rows, int inputs, int outputs, const float* b, Load load, Store store)
{
    if (p.control->status != 0) return;
    // As lanes take it: two inputs of the rows g and g + 8, hi and lo.
    const int STEPS = DEPTH / 8;
    __shared__ float4 tile[ROWS / 16][STEPS][2][32];
    int warp = threadIdx.x / 32, lane = warp_lane(), g = lane / 4, c = lane % 4;
    int first_row = blockIdx.x * ROWS, down = warp / 2 * 32, first_column = blockIdx.y * COLUMNS + warp % 2 * 32;
    bool on = first_column < outputs;
    const float4* right = (const float4*)b + (first_column / 32 * (inputs / 8)) * 128 + lane;
    float4 sums[2][4], next[2];
#pragma unroll
    for (int n = 0; n < 8; n++) sums[n / 4][n % 4] = zero4();

    // What this thread brings to shared memory: four inputs of two rows.
    int block = threadIdx.x / 32, place = lane / 4, k = lane % 4 * 4;
    auto fetch = [&](int from) {
        int row = first_row + 16 * block + place;
        next[0] = row < rows ? load(row, from + k) : zero4();
        next[1] = row + 8 < rows ? load(row + 8, from + k) : zero4();
    };
    fetch(0);
    for (int slab = 0; slab < inputs; slab += DEPTH) {
        float4* to = tile[block][k / 8][0] + place * 4 + k % 8 / 2;
        float4 v = next[0], w = next[1];
        float4 quad = make_float4(nearest_tf32(v.x), nearest_tf32(w.x), nearest_tf32(v.y), nearest_tf32(w.y));
        to[0] = quad;
        to[32] = make_float4(nearest_tf32(v.x - quad.x), nearest_tf32(w.x - quad.y), nearest_tf32(v.y - quad.z), nearest_tf32(w.y - quad.w));
        quad = make_float4(nearest_tf32(v.z), nearest_tf32(w.z), nearest_tf32(v.w), nearest_tf32(w.w));
        to[1] = quad;
        to[33] = make_float4(nearest_tf32(v.z - quad.x), nearest_tf32(w.z - quad.y), nearest_tf32(v.w - quad.z), nearest_tf32(w.w - quad.w));
        __syncthreads();
        // The next slab travels while this one is used.
        if (slab + DEPTH < inputs) fetch(slab + DEPTH);
        if (on) {
            float4 left[2][STEPS][2];
#pragma unroll
            for (int n = 0; n < 4 * STEPS; n++) left[n / 2 / STEPS][n / 2 % STEPS][n % 2] = tile[warp / 2 * 2 + n / 2 / STEPS][n / 2 % STEPS][n % 2][lane];
#pragma unroll
            for (int n = 0; n < 4; n++) {
                float4 column[STEPS];
#pragma unroll
                for (int s = 0; s < STEPS; s++) column[s] = __ldg(right + (4 * s + n) * 32);
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    float4 part = zero4();
#pragma unroll
                    for (int s = 0; s < STEPS; s++) {
                        add_tf32_product(part, left[m][s][1], column[s].x, column[s].y);
                        add_tf32_product(part, left[m][s][0], column[s].z, column[s].w);
                    }
#pragma unroll
                    for (int s = 0; s < STEPS; s++) add_tf32_product(part, left[m][s][0], column[s].x, column[s].y);
                    sums[m][n] = add(sums[m][n], part);
                }
            }
            right += STEPS * 128;
        }
        __syncthreads();
    }
    if (!on) return;
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int T = 0; T < 2; T++) {
            int row = first_row + down + 16 * m + g, column = first_column + 16 * T + 4 * c;
            float4 a = sums[m][2 * T], d = sums[m][2 * T + 1];
            if (row < rows) store(row, column, make_float4(a.x, a.y, d.x, d.y));
            if (row + 8 < rows) store(row + 8, column, make_float4(a.z, a.w, d.z, d.w));
        }
}
#endif
