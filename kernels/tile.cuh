// Matrix products of a tile of atoms on the tensor cores, for many atoms: factors wait in shared memory, weights come through the
// caches. A block has TILE atoms, 16, and eight warps or sixteen; a warp makes, of every part of the columns, channels 16 at a time. (With 32 atoms weights
// come half as often, but a warp has twice the sums in its registers: it is slower.)
//
// Factors are 16 bits wide: each is split into hi + lo, and lo·hi + hi·lo + hi·hi is summed from zero for each 16 or 32 inputs, then
// added with rounding. So that 16 bits are enough for any number, a row is first scaled by the power of two that brings its
// largest to between 2^10 and 2^11, and a whole matrix of weights to between 2^7 and 2^8: what is left out is less than
// 2^-22 of the largest. With g = lane / 4 and c = lane % 4 a lane gives the inputs 16 k + 4 c and on of rows g and g + 8, and
// has the four channels 4 c and on of both. src/backend/cuda/tiles.rs packs the weights to match.
//
// With 128 channels, and multiprocessors enough for a tile each, a block has sixteen warps: two of them share a block of channels.
//
// In reduced precision a factor is its hi alone: a product instead of three, and half as many weights. Sums then have no parts, which
// leaves registers for tiles of 32 atoms, where the shared memory has room for them.
#pragma once
#include "mma.cuh"

// Rows of a tile that a lane has, and sixteens of them.
#define LANE_ROWS (TILE / 8)
#define TILE_PARTS (TILE / 16)
#define TILE_THREADS (32 * TILE_WARPS)
// Warps that share a block of channels: each multiplies its part of the inputs, then has its part of the rows.
#define SHARES (TILE_WARPS / 8)
#define SHARED_ROWS (LANE_ROWS / SHARES)
// So many blocks of threads on a multiprocessor: one computes while another one waits.
#define TILE_BLOCKS (FEATURES <= 128 && SHARES == 1 ? 2 : 1)
// Blocks of 16 channels, and how many of them are a warp's at the most.
#define CHANNEL_BLOCKS (FEATURES / 16)
#define OWN_BLOCKS ((CHANNEL_BLOCKS + 7) / 8)
// Rows in shared memory stand so far apart that those which lanes read together meet in no bank.
#define ROW_PADDING 8
// Numbers of a tile in shared memory, see `make_work`; behind them, for each warp, the sums that it gives another one.
#define TILE_FLOATS (TILE * (6 * FEATURES + 5 * ROW_PADDING + 5))
#define SHARED_SUMS 3

// Weights [inputs][outputs] of a dense layer, see tiles.rs.
struct Tiles {
    const uint4* data; // [outputs / 8][inputs / 16][32]
    const float* bias; // [outputs], or null
    float unit;
    int outputs;
};

// Rows in shared memory, as numbers or split. Rows r and r + 8 of each sixteen share a place of two strides. As numbers they
// stand one behind the other; split, hi of both in turns, two inputs at a time, then lo: what a lane gives to a product is then
// one load. `unit`: of each row when it is split.
struct Rows {
    float* at;
    float* unit;
    int stride;
    __device__ float* pair(int index) const { return at + index * 2 * stride; }
    __device__ float* row(int index) const { return pair(index / 16 * 8 + index % 8) + (index / 8 % 2) * stride; }
};

// What follows from the thread is computed where it is used: kept through all layers it would fill the registers.
__device__ inline int tile_thread() { return here(threadIdx.x); }
__device__ inline int warp_of_block() { return tile_thread() >> 5; }
__device__ inline int lane_of_tile() { return tile_thread() & 31; }
// A warp's first block of channels, others follow in steps of eight; and which one of those that share them it is.
__device__ inline int first_block() { return warp_of_block() % 8; }
__device__ inline int share() { return SHARES == 1 ? 0 : warp_of_block() / 8; }

__device__ inline float4 abs_max(float4 a, float4 b)
{
    return make_float4(fmaxf(a.x, fabsf(b.x)), fmaxf(a.y, fabsf(b.y)), fmaxf(a.z, fabsf(b.z)), fmaxf(a.w, fabsf(b.w)));
}

// The power of two that brings a row's largest number to where 16 bits are enough, and the row's unit. One warp.
template <int MOST> __device__ inline float row_factor(const float4* values, float& unit)
{
    float4 most = zero4();
#pragma unroll
    for (int k = 0; k < MOST; k++) most = abs_max(most, values[k]);
    // Numbers that are not negative rise with their bits. Powers of two by their exponents; what is no number stays so.
    unsigned largest = __float_as_uint(fmaxf(fmaxf(most.x, most.y), fmaxf(most.z, most.w)));
    int exponent = max(min((int)(__reduce_max_sync(FULL, largest) >> 23), 250), 20);
    unit = __uint_as_float((unsigned)(exponent - 10) << 23);
    return __uint_as_float((unsigned)(264 - exponent) << 23);
}

// Four numbers as hi and lo, two in a register.
struct Halves {
    unsigned hi0, hi1, lo0, lo1;
};

__device__ inline Halves split4(float4 v)
{
    unsigned hi0 = pack_halves(v.x, v.y), hi1 = pack_halves(v.z, v.w);
    return {hi0, hi1, pack_halves(v.x - lower_half(hi0), v.y - upper_half(hi0)),
            pack_halves(v.z - lower_half(hi1), v.w - upper_half(hi1))};
}

// Splits rows of up to MOST * 128 numbers; `value(row, k)` gives four of them, and may read the rows that are written. Warps share
// the pairs of rows, of which there are `pairs`. The block must wait before and after.
template <int MOST, class Value> __device__ inline void split_rows(const Rows& to, int pairs, int width, Value value)
{
    // Some at a time, so that their loads are under way together.
    const int GROUP = MOST == 1 ? 2 : 1;
    for (int first = warp_of_block(); first < pairs; first += GROUP * TILE_WARPS) {
        float4 values[GROUP][2][MOST];
#pragma unroll
        for (int n = 0; n < 2 * GROUP; n++)
#pragma unroll
            for (int k = 0; k < MOST; k++) {
                int pair = first + n / 2 * TILE_WARPS, row = pair / 8 * 16 + pair % 8 + n % 2 * 8, at = 4 * (lane_of_tile() + 32 * k);
                values[n / 2][n % 2][k] = pair < pairs && at < width ? value(row, at) : zero4();
            }
        __syncwarp();
#pragma unroll
        for (int n = 0; n < GROUP; n++) {
            int pair = first + n * TILE_WARPS;
            if (pair >= pairs) continue;
            float low_unit, high_unit, low = row_factor<MOST>(values[n][0], low_unit), high = row_factor<MOST>(values[n][1], high_unit);
            unsigned* place = (unsigned*)to.pair(pair);
#pragma unroll
            for (int k = 0; k < MOST; k++) {
                int at = 4 * (lane_of_tile() + 32 * k);
                if (at >= width) continue;
                Halves a = split4(scale(low, values[n][0][k])), b = split4(scale(high, values[n][1][k]));
                *(uint4*)(place + at) = make_uint4(a.hi0, b.hi0, a.hi1, b.hi1);
                if (!REDUCED) *(uint4*)(place + width + at) = make_uint4(a.lo0, b.lo0, a.lo1, b.lo1);
            }
            if (lane_of_tile() == 0) {
                float* unit = to.unit + pair / 8 * 16 + pair % 8;
                unit[0] = low_unit;
                unit[8] = high_unit;
            }
        }
    }
}

template <int MOST> __device__ inline void split_in_place(const Rows& rows, int pairs, int width)
{
    split_rows<MOST>(rows, pairs, width, [&](int row, int k) { return *(const float4*)(rows.row(row) + k); });
}

// Sums of a tile's rows and of some blocks of 16 columns: [0] is row g, [1] row g + 8, four channels each.
template <int COMPONENTS, int BLOCKS> struct Sums {
    float4 of[COMPONENTS][BLOCKS][LANE_ROWS];
};

// Weights of a step, of so many, from where the lane has those of the first block on; then `weights` is at the next step.
template <int BLOCKS> __device__ inline void fetch_step(uint4 (&to)[BLOCKS][2], const uint4*& weights, const int* block, int steps)
{
#pragma unroll
    for (int b = 0; b < BLOCKS; b++)
#pragma unroll
        for (int t = 0; t < 2; t++) to[b][t] = __ldg(weights + ((block[b] - block[0]) * 2 + t) * steps * 32);
    weights += 32;
}

// As products come, two channels of row g (this lane's) and two of row g + 8, to four channels of each, in the units of both factors.
template <int COMPONENTS, int BLOCKS>
__device__ inline void to_channels(Sums<COMPONENTS, BLOCKS>& sums, const Rows& left, const Tiles& right, int g)
{
#pragma unroll
    for (int component = 0; component < COMPONENTS; component++)
#pragma unroll
        for (int m = 0; m < TILE_PARTS; m++) {
            const float* unit = left.unit + component * TILE + m * 16 + g;
            float low = unit[0] * right.unit, high = unit[8] * right.unit;
#pragma unroll
            for (int b = 0; b < BLOCKS; b++) {
                float4 *pair = sums.of[component][b] + 2 * m, first = pair[0], second = pair[1];
                pair[0] = scale(low, make_float4(first.x, first.y, second.x, second.y));
                pair[1] = scale(high, make_float4(first.z, first.w, second.z, second.w));
            }
        }
}

// Adds up what both warps with the same block have of a product: each gives the other's row and is left with the sum of its own. All
// threads must call it; before the next time they must have waited for each other.
template <int COMPONENTS, int BLOCKS> __device__ inline void add_shares(Sums<COMPONENTS, BLOCKS>& sums)
{
#if SHARES > 1
    static_assert(SHARES == 2 && TILE == 16 && CHANNEL_BLOCKS == 8 && COMPONENTS * BLOCKS <= SHARED_SUMS, "two warps share two rows");
    DYNAMIC_SHARED(float, tile_memory);
    float4* rooms = (float4*)(tile_memory + TILE_FLOATS) + lane_of_tile();
    float4 *mine = rooms + warp_of_block() * SHARED_SUMS * 32, *theirs = rooms + (warp_of_block() ^ 8) * SHARED_SUMS * 32;
#pragma unroll
    for (int k = 0; k < COMPONENTS * BLOCKS; k++) {
        const float4* both = sums.of[k / BLOCKS][k % BLOCKS];
        mine[32 * k] = share() == 0 ? both[1] : both[0];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < COMPONENTS * BLOCKS; k++) {
        float4* both = sums.of[k / BLOCKS][k % BLOCKS];
        both[0] = add(share() == 0 ? both[0] : both[1], theirs[32 * k]);
    }
#endif
}

#if REDUCED
// sums = left · right, of `width` inputs, factors of 16 bits.
template <int COMPONENTS, int BLOCKS>
__device__ inline void multiply(Sums<COMPONENTS, BLOCKS>& sums, const Rows& left, const Tiles& right, int width, const int* block)
{
    int lane = lane_of_tile(), g = lane / 4, c = lane % 4, steps = width / 32;
    const unsigned* rows = (const unsigned*)left.pair(g) + 4 * c;
    const uint4* weights = right.data + block[0] * 2 * steps * 32 + lane;
    uint4 next[BLOCKS][2];
    auto fetch = [&]() { fetch_step(next, weights, block, steps); };
    // Weights are on their way a step before they are needed, where there are registers for it.
    const bool AHEAD = BLOCKS * TILE_PARTS <= 4;
    if (AHEAD) fetch();
#pragma unroll
    for (int component = 0; component < COMPONENTS; component++)
#pragma unroll
        for (int b = 0; b < BLOCKS; b++)
#pragma unroll
            for (int n = 0; n < LANE_ROWS; n++) sums.of[component][b][n] = zero4();
#pragma unroll 1
    for (int k = 0; k < steps; k++) {
        if (!AHEAD) fetch();
        uint4 now[BLOCKS][2];
#pragma unroll
        for (int b = 0; b < BLOCKS; b++)
#pragma unroll
            for (int t = 0; t < 2; t++) now[b][t] = next[b][t];
        // Behind the last weights there is room for what is then read and not used.
        if (AHEAD) fetch();
#pragma unroll
        for (int step = 0; step < 2; step++)
#pragma unroll
            for (int component = 0; component < COMPONENTS; component++)
#pragma unroll
                for (int m = 0; m < TILE_PARTS; m++) {
                    uint4 f = *(const uint4*)(rows + (component * TILE + m * 16) * left.stride + 16 * step);
#pragma unroll
                    for (int b = 0; b < BLOCKS; b++)
#pragma unroll
                        for (int t = 0; t < 2; t++) {
                            uint4 w = now[b][t];
                            add_half_product(sums.of[component][b][2 * m + t], f.x, f.y, f.z, f.w, step == 0 ? w.x : w.z, step == 0 ? w.y : w.w);
                        }
                }
        rows += 32;
    }
    to_channels(sums, left, right, g);
}
#else
// sums = left · right, of `width` inputs. `left`: split; COMPONENTS groups of TILE rows times the same weights. `block`: which
// blocks of columns.
template <int COMPONENTS, int BLOCKS>
__device__ inline void multiply(Sums<COMPONENTS, BLOCKS>& sums, const Rows& left, const Tiles& right, int width, const int* block)
{
    // Sixteen inputs, or two times sixteen where there are registers for it, go into a part before it is added.
    const int STEPS = COMPONENTS * BLOCKS <= 2 ? 2 : 1;
    int lane = lane_of_tile(), g = lane / 4, c = lane % 4, steps = width / 16;
    int from = SHARES == 1 ? 0 : steps / STEPS * share() / SHARES * STEPS;
    int to = SHARES == 1 ? steps : steps / STEPS * (share() + 1) / SHARES * STEPS;
    const unsigned* rows = (const unsigned*)left.pair(g) + 4 * c + 16 * from;
    const uint4* weights = right.data + (block[0] * 2 * steps + from) * 32 + lane;
    uint4 next[BLOCKS][2];
    auto fetch = [&]() { fetch_step(next, weights, block, steps); };
    // Weights are on their way a step before they are needed, where there are registers for it.
    const bool AHEAD = COMPONENTS * BLOCKS <= 4;
    if (AHEAD) fetch();
#pragma unroll
    for (int component = 0; component < COMPONENTS; component++)
#pragma unroll
        for (int b = 0; b < BLOCKS; b++) sums.of[component][b][0] = sums.of[component][b][1] = zero4();
#pragma unroll 1
    for (int k = from; k < to; k += STEPS) {
        float4 parts[COMPONENTS][BLOCKS][2];
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            if (!AHEAD) fetch();
            uint4 now[BLOCKS][2];
#pragma unroll
            for (int b = 0; b < BLOCKS; b++)
#pragma unroll
                for (int t = 0; t < 2; t++) now[b][t] = next[b][t];
            // Behind the last weights there is room for what is then read and not used.
            if (AHEAD) fetch();
#pragma unroll
            for (int component = 0; component < COMPONENTS; component++) {
                const unsigned* at = rows + component * TILE * left.stride + 16 * step;
                uint4 hi = *(const uint4*)at, lo = *(const uint4*)(at + width);
#pragma unroll
                for (int b = 0; b < BLOCKS; b++)
#pragma unroll
                    for (int t = 0; t < 2; t++) {
                        uint4 w = now[b][t];
                        float4& part = parts[component][b][t];
                        if (step == 0) part = half_product(lo.x, lo.y, lo.z, lo.w, w.x, w.y);
                        else add_half_product(part, lo.x, lo.y, lo.z, lo.w, w.x, w.y);
                        add_half_product(part, hi.x, hi.y, hi.z, hi.w, w.z, w.w);
                        add_half_product(part, hi.x, hi.y, hi.z, hi.w, w.x, w.y);
                    }
            }
        }
        rows += 16 * STEPS;
        // As the products come: two channels of row g, two of row g + 8.
#pragma unroll
        for (int component = 0; component < COMPONENTS; component++)
#pragma unroll
            for (int b = 0; b < BLOCKS; b++)
#pragma unroll
                for (int t = 0; t < 2; t++) sums.of[component][b][t] = add(sums.of[component][b][t], parts[component][b][t]);
    }
    to_channels(sums, left, right, g);
    add_shares(sums);
}
#endif

// A lane's n-th row within the tile.
__device__ inline int own_row(int n) { return 8 * (share() * SHARED_ROWS + n) + lane_of_tile() / 4; }

// Goes through what a lane has: `visit(half, row)`, row within the tile.
template <class Visit> __device__ inline void each_row(Visit visit)
{
#pragma unroll
    for (int half = 0; half < SHARED_ROWS; half++) visit(half, own_row(half));
}

// The same some rows at a time, as many as registers allow: `visit(first)` may go through those from `first` on with group_rows.
#define TOGETHER (TILE_PARTS == 1 && SHARES == 1 ? 2 : 1)
template <class Visit> __device__ inline void each_group(Visit visit)
{
#pragma unroll
    for (int first = 0; first < SHARED_ROWS; first += TOGETHER) {
        visit(first);
        if (TILE_PARTS > 1) __syncwarp();
    }
}

template <class Visit> __device__ inline void group_rows(int first, Visit visit)
{
#pragma unroll
    for (int half = first; half < first + TOGETHER; half++) visit(half, own_row(half));
}

// A warp's n-th block of channels. Where it has fewer, its last one again: a distance that is known costs no registers.
__device__ inline int own_block(int n)
{
    int block = first_block() + 8 * n;
    return CHANNEL_BLOCKS % 8 == 0 ? block : min(block, CHANNEL_BLOCKS - 1);
}

// X W for all of a warp's blocks of channels at once; `visit(n, channel, sums)`.
template <class Visit> __device__ inline void multiply_own(const Rows& left, const Tiles& right, int width, Visit visit)
{
    Sums<1, OWN_BLOCKS> sums;
    int blocks[OWN_BLOCKS];
#pragma unroll
    for (int n = 0; n < OWN_BLOCKS; n++) blocks[n] = own_block(n);
    multiply(sums, left, right, width, blocks);
#pragma unroll
    for (int n = 0; n < OWN_BLOCKS; n++)
        if (first_block() + 8 * n < CHANNEL_BLOCKS)
            visit(n, 16 * own_block(n) + lane_of_tile() % 4 * 4, sums.of[0][n]);
}

// Y = X W + bias with one block of columns after the other; `store(row, column, y)` takes four columns.
template <class Store>
__device__ inline void dense_tile(const Rows& left, const Tiles& right, int width, Store store)
{
    const int blocks = right.outputs / 16;
#pragma unroll 1
    for (int first = 0; first < blocks; first += 8) {
        int block = first + first_block(), there = min(block, blocks - 1);
        // Warps that share a block wait for all others: those without one must come along.
        if (SHARES == 1 && block != there) break;
        Sums<1, 1> sums;
        multiply(sums, left, right, width, &there);
        int column = 16 * there + lane_of_tile() % 4 * 4;
        float4 bias = right.bias ? load4(right.bias + column) : zero4();
        each_row([&](int half, int row) {
            if (block == there) store(row, column, add(bias, sums.of[0][0][half]));
        });
        if (SHARES > 1) __syncthreads();
    }
}
