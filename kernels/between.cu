// What happens to many atoms of a `painn` between two exchanges of messages, all of it in one kernel: a tile of atoms comes into
// shared memory, and leaves when all dense layers up to the next exchange are done. Only what messages need is kept in device
// memory; V, Y and the hidden layers of a block are made anew on the way back.
//
// One or two blocks a multiprocessor, which walk over tiles. No row of a product sees another one, and each has its inputs summed in
// order, so neither tiles nor grid change a bit. Formulas as in ARCHITECTURE.md.
#include "tile.cuh"

// Weights of an update block.
struct Update {
    Tiles mix, first, second;                // M, U1, U2
    Tiles mix_back, first_back, second_back; // their transposes
    float epsilon;
};

// Those of what atoms send into a layer.
struct Context {
    Tiles first, second, first_back, second_back; // W1, W2
};

// Most hidden layers of a readout, and what they are.
#define READOUT_LAYERS 3
struct TiledReadout {
    Tiles layers[READOUT_LAYERS], back[READOUT_LAYERS];
    const float* last_weight;
    float last_bias;
    int count;
};

static_assert(sizeof(Update) == UPDATE_BYTES && sizeof(Context) == CONTEXT_BYTES && sizeof(TiledReadout) == TILED_READOUT_BYTES,
              "host and device disagree on what they share");

// What a block has: three factors of a product in shared memory, and room in device memory for what its threads leave for
// themselves.
struct Work {
    Rows vectors; // [3][TILE] rows of F
    Rows scalars; // [TILE] rows of 2F: [q, n]
    Rows hidden;  // [TILE] rows of F
    Rows wide;    // [TILE] rows of 3F, in the place of `vectors`
    Rows both;    // [3][TILE] rows of 2F, all over the others
    float4* kept; // [slots][OWN_BLOCKS][SHARED_ROWS][TILE_THREADS]
    int first;    // atom's row of the tile's first one
    int atoms;

    __device__ bool has(int row) const { return first + row < atoms; }
    // A row of the network's arrays; past the last atom the last one's, for reading.
    __device__ long long global(int row) const { return min(first + row, atoms - 1); }
};

// What threads keep, by slot: three V, three Y, the hidden layer of the update, two of its coefficients, and g_q.
#define KEEP_V 0
#define KEEP_Y 3
#define KEEP_H 6
#define KEEP_A2 7
#define KEEP_A3 8
#define KEEP_GQ 9
#define KEPT 10

__device__ inline Work make_work(const Parameters& p, float* memory, float4* kept)
{
    const int wide = FEATURES + ROW_PADDING, double_wide = 2 * FEATURES + ROW_PADDING;
    float* units = memory + TILE * (4 * wide + double_wide);
    Work b;
    b.vectors = {memory, units, wide};
    b.scalars = {memory + 3 * TILE * wide, units + 3 * TILE, double_wide};
    b.hidden = {memory + TILE * (3 * wide + double_wide), units + 4 * TILE, wide};
    b.wide = {memory, units, 3 * FEATURES + ROW_PADDING};
    b.both = {memory, units, double_wide};
    b.kept = kept + (long long)blockIdx.x * KEPT * OWN_BLOCKS * SHARED_ROWS * TILE_THREADS;
    b.first = 0;
    b.atoms = p.atoms;
    return b;
}

// A thread's own place for what it keeps of its n-th block of columns.
__device__ inline float4& kept(const Work& b, int slot, int n, int half)
{
    return b.kept[((slot * OWN_BLOCKS + n) * SHARED_ROWS + half) * TILE_THREADS + tile_thread()];
}

// Calls `visit(n, block, channel)` for a warp's blocks of 16 channels; `channel` is the lane's first of four.
template <class Visit> __device__ inline void each_block(Visit visit)
{
#pragma unroll 1
    for (int n = 0; n < OWN_BLOCKS; n++) {
        int block = first_block() + 8 * n;
        if (block < CHANNEL_BLOCKS) visit(n, block, 16 * block + lane_of_tile() % 4 * 4);
    }
}

__device__ inline float4 silu4(float4 v) { return make_float4(silu(v.x), silu(v.y), silu(v.z), silu(v.w)); }
__device__ inline float4 silu_slope4(float4 v)
{
    return make_float4(silu_slope(v.x), silu_slope(v.y), silu_slope(v.z), silu_slope(v.w));
}
__device__ inline float4 sqrt4(float4 v) { return make_float4(sqrtf(v.x), sqrtf(v.y), sqrtf(v.z), sqrtf(v.w)); }
__device__ inline float4 div4(float4 a, float4 b) { return make_float4(a.x / b.x, a.y / b.y, a.z / b.z, a.w / b.w); }
// a · b over three components.
__device__ inline float4 dot3(const float4* a, const float4* b) { return fma4(a[2], b[2], fma4(a[1], b[1], mul(a[0], b[0]))); }

#define MOST_F ((FEATURES + 127) / 128)

__device__ inline void split_hidden(const Work& b)
{
    __syncthreads();
    split_in_place<MOST_F>(b.hidden, TILE / 2, FEATURES);
    __syncthreads();
}

// The tile's q and μ.
__device__ inline void load_tile(const Work& b, const float* q, const float* mu)
{
    split_rows<MOST_F>(b.vectors, 3 * TILE / 2, FEATURES, [&](int row, int k) {
        return *(const float4*)(mu + (3 * b.global(row % TILE) + row / TILE) * FEATURES + k);
    });
#pragma unroll 4
    for (int k = tile_thread(); k < TILE * (FEATURES / 4); k += TILE_THREADS) {
        int row = k / (FEATURES / 4), at = k % (FEATURES / 4) * 4;
        store4(b.scalars.row(row) + at, load4(q + b.global(row) * FEATURES + at));
    }
}

// What this thread has kept of its n-th block in COUNT slots from `slot` on: all of it before anything is stored, so that one does not
// wait for the other.
template <int COUNT> struct Taken {
    float4 of[TOGETHER][COUNT];
};

template <int COUNT> __device__ inline Taken<COUNT> take(const Work& b, int slot, int n, int first)
{
    Taken<COUNT> taken;
#pragma unroll
    for (int k = 0; k < TOGETHER * COUNT; k++) taken.of[k / COUNT][k % COUNT] = kept(b, slot + k % COUNT, n, first + k / COUNT);
    return taken;
}

// From q and μ to the update's hidden layer, split. Y is kept, and V and the layer itself, or, where nobody goes BACK from here, V · Y
// in the place of V. Ends with a barrier.
template <bool BACK> __device__ inline void update_hidden(const Work& b, const Update& own)
{
    __syncthreads();
    each_block([&](int n, int block, int channel) {
        // One after the other, so that weights can be on their way.
#if REDUCED
        Sums<3, 1> sums;
        multiply(sums, b.vectors, own.mix, FEATURES, &block);
        each_row([&](int half, int row) {
            float4 v[3] = {sums.of[0][0][half], sums.of[1][0][half], sums.of[2][0][half]};
            for (int c = 0; c < 3; c++) kept(b, KEEP_V + c, n, half) = v[c];
            float4 square = add(dot3(v, v), make_float4(own.epsilon, own.epsilon, own.epsilon, own.epsilon));
            store4(b.scalars.row(row) + FEATURES + channel, sqrt4(square));
        });
        block += CHANNEL_BLOCKS;
        multiply(sums, b.vectors, own.mix, FEATURES, &block);
        each_group([&](int first) {
            Taken<3> vectors;
            if (!BACK) vectors = take<3>(b, KEEP_V, n, first);
            group_rows(first, [&](int half, int row) {
                float4 y[3] = {sums.of[0][0][half], sums.of[1][0][half], sums.of[2][0][half]};
                for (int c = 0; c < 3; c++) kept(b, KEEP_Y + c, n, half) = y[c];
                if (!BACK) kept(b, KEEP_V, n, half) = dot3(vectors.of[half % TOGETHER], y);
            });
        });
#else
        Sums<3, 1> all_v, all_y;
        int block_of_y = CHANNEL_BLOCKS + block;
        multiply(all_v, b.vectors, own.mix, FEATURES, &block);
        if (SHARES > 1) __syncthreads();
        multiply(all_y, b.vectors, own.mix, FEATURES, &block_of_y);
        each_row([&](int half, int row) {
            float4 v[3], y[3];
#pragma unroll
            for (int c = 0; c < 3; c++) {
                v[c] = all_v.of[c][0][half];
                kept(b, KEEP_Y + c, n, half) = y[c] = all_y.of[c][0][half];
                if (BACK) kept(b, KEEP_V + c, n, half) = v[c];
            }
            if (!BACK) kept(b, KEEP_V, n, half) = dot3(v, y);
            float4 square = add(dot3(v, v), make_float4(own.epsilon, own.epsilon, own.epsilon, own.epsilon));
            store4(b.scalars.row(row) + FEATURES + channel, sqrt4(square));
        });
#endif
    });
    __syncthreads();
    split_in_place<2 * MOST_F>(b.scalars, TILE / 2, 2 * FEATURES);
    __syncthreads();
    multiply_own(b.scalars, own.first, 2 * FEATURES, [&](int n, int channel, const float4* sums) {
        float4 bias = load4(own.first.bias + channel);
        each_row([&](int half, int row) {
            float4 h = add(bias, sums[half]);
            if (BACK) kept(b, KEEP_H, n, half) = h;
            store4(b.hidden.row(row) + channel, silu4(h));
        });
    });
    split_hidden(b);
}

#if REDUCED
__device__ inline uint2 halves(float4 v) { return make_uint2(pack_halves(v.x, v.y), pack_halves(v.z, v.w)); }

// Four channels from `channel` on of a row of what an atom sends, and of a row of the gradients that it is sent: see reduced.cuh.
__device__ inline void store_sent(float* to, long long atom, int row, int channel, float4 v)
{
    ((uint2*)to)[2 * sent_place(false, atom, channel / 64, row, channel / 8 % 8) + channel / 4 % 2] = halves(v);
}

__device__ inline void store_gradients(uint2* to, long long atom, int row, int channel, float4 v)
{
    to[((atom * SLICES + channel / 32) * GRADIENT_ROWS + row) * 8 + channel / 4 % 8] = halves(scale(GRADIENT_SCALE, v));
}

// The k-th of the gradients of what an atom sent, which lie where that was.
__device__ inline const float* given_back(const float* from, long long atom, int k)
{
    int channel = k % FEATURES, chunk = channel / 32 % 2 * 4 + channel / 4 % 4;
    return from + 4 * sent_place(false, atom, channel / 64, k / FEATURES * 2 + channel / 16 % 2, chunk);
}
#endif

// From x_j's context layers: hidden ones to `hidden`, what is sent to `sent`. q stands in `scalars`, as numbers.
__device__ inline void send(const Work& b, const Context& next, float* hidden, float* sent)
{
    __syncthreads();
    split_in_place<MOST_F>(b.scalars, TILE / 2, FEATURES);
    __syncthreads();
    dense_tile(b.scalars, next.first, FEATURES, [&](int row, int column, float4 h) {
        if (b.has(row)) store4(hidden + b.global(row) * FEATURES + column, h);
        store4(b.hidden.row(row) + column, silu4(h));
    });
    split_hidden(b);
    each_block([&](int, int block, int channel) {
        Sums<1, 3> sums;
        int blocks[3] = {block, CHANNEL_BLOCKS + block, 2 * CHANNEL_BLOCKS + block};
        multiply(sums, b.hidden, next.second, FEATURES, blocks);
#pragma unroll
        for (int part = 0; part < 3; part++) {
            float4 bias = load4(next.second.bias + part * FEATURES + channel);
            each_row([&](int half, int row) {
                float4 x = add(bias, sums.of[0][part][half]);
                if (!b.has(row)) return;
#if REDUCED
                store_sent(sent, b.global(row), part, channel, x);
#else
                store4(sent + (3 * b.global(row) + part) * FEATURES + channel, x);
#endif
            });
        }
    });
}

// From q and μ behind a layer's messages to what the next layer's messages need: q and μ after the update, `q_out` and `mu_out`;
// the hidden layer of the context, and what atoms send.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS)
between(Parameters p, const __grid_constant__ Update own, const __grid_constant__ Context next, const float* q, const float* mu,
        float* q_out, float* mu_out, float* hidden, float* sent, float4* room)
{
    DYNAMIC_SHARED(float, memory);
    if (p.control->status != 0) return;
    Work b = make_work(p, memory, room);
    for (b.first = blockIdx.x * TILE; b.first < p.atoms; b.first += gridDim.x * TILE) {
        load_tile(b, q, mu);
        update_hidden<false>(b, own);
        each_block([&](int n, int block, int channel) {
            Sums<1, 3> a;
            int blocks[3] = {block, CHANNEL_BLOCKS + block, 2 * CHANNEL_BLOCKS + block};
            multiply(a, b.hidden, own.second, FEATURES, blocks);
            const float* bias = own.second.bias + channel;
            each_group([&](int first) {
                Taken<1> along = take<1>(b, KEEP_V, n, first);
                Taken<3> y = take<3>(b, KEEP_Y, n, first);
                group_rows(first, [&](int half, int row) {
                    float4 a1 = add(load4(bias), a.of[0][0][half]), a2 = add(load4(bias + FEATURES), a.of[0][1][half]),
                           a3 = add(load4(bias + 2 * FEATURES), a.of[0][2][half]);
                    long long scalar = b.global(row) * FEATURES + channel, vector = 3 * b.global(row) * FEATURES + channel;
                    float4 after = add(load4(q + scalar), fma4(a3, along.of[half % TOGETHER][0], a1));
                    store4(b.scalars.row(row) + channel, after);
                    if (!b.has(row)) return;
                    store4(q_out + scalar, after);
#pragma unroll
                    for (int c = 0; c < 3; c++) {
                        float4 after = fma4(a2, y.of[half % TOGETHER][c], load4(mu + vector + c * FEATURES));
                        store4(mu_out + vector + c * FEATURES, after);
#if REDUCED
                        store_sent(sent, b.global(row), 3 + c, channel, after);
#endif
                    }
                });
            });
        });
        send(b, next, hidden, sent);
    }
}

// The way back through an update block, from the gradients of what came out of it: g_q is kept, and V, Y, the hidden layer,
// a2 and a3; g_μ stands in `gmu`, or is zero after the last layer. In: gradients G of the coefficients in `vectors`, as [TILE] rows
// of 3F numbers. Out: gradients of what went in, to `gq_out` and `gmu_out`.
template <bool LAST>
__device__ inline void update_back(const Work& b, const Update& own, const float* gmu, float* gq_out, float* gmu_out, uint2* gradients)
{
    __syncthreads();
    split_in_place<3 * MOST_F>(b.wide, TILE / 2, 3 * FEATURES);
    __syncthreads();
    multiply_own(b.wide, own.second_back, 3 * FEATURES, [&](int n, int channel, const float4* sums) {
        each_row([&](int half, int row) {
            store4(b.hidden.row(row) + channel, mul(silu_slope4(kept(b, KEEP_H, n, half)), sums[half]));
        });
    });
    split_hidden(b);
    // The gradient of [q, n]: of all blocks, since what follows lies over the factor.
    Sums<1, 2 * OWN_BLOCKS> back;
    int blocks[2 * OWN_BLOCKS];
#pragma unroll
    for (int n = 0; n < OWN_BLOCKS; n++) {
        blocks[n] = own_block(n);
        blocks[n + OWN_BLOCKS] = CHANNEL_BLOCKS + own_block(n);
    }
    multiply(back, b.hidden, own.first_back, FEATURES, blocks);
    __syncthreads();
#pragma unroll
    for (int n = 0; n < OWN_BLOCKS; n++) {
        int block = first_block() + 8 * n, channel = 16 * block + lane_of_tile() % 4 * 4;
        if (block >= CHANNEL_BLOCKS) continue;
        each_group([&](int first) {
            Taken<3> vectors = take<3>(b, KEEP_V, n, first);
            group_rows(first, [&](int half, int row) {
                const float4* v = vectors.of[half % TOGETHER];
                float4 y[3] = {kept(b, KEEP_Y, n, half), kept(b, KEEP_Y + 1, n, half), kept(b, KEEP_Y + 2, n, half)};
                float4 gq = kept(b, KEEP_GQ, n, half), gn = back.of[0][n + OWN_BLOCKS][half];
                float4 square = add(dot3(v, v), make_float4(own.epsilon, own.epsilon, own.epsilon, own.epsilon));
                float4 slope = div4(gn, sqrt4(square)), part = mul(gq, kept(b, KEEP_A3, n, half));
                float4 a2 = LAST ? zero4() : kept(b, KEEP_A2, n, half);
                long long scalar = b.global(row) * FEATURES + channel, vector = 3 * b.global(row) * FEATURES + channel;
#pragma unroll
                for (int c = 0; c < 3; c++) {
                    float* to = b.both.row(c * TILE + row) + channel;
                    float4 gy = mul(part, v[c]);
                    if (!LAST) gy = fma4(a2, load4(gmu + vector + c * FEATURES), gy);
                    store4(to, fma4(slope, v[c], mul(part, y[c])));
                    store4(to + FEATURES, gy);
                }
                if (!b.has(row)) return;
                float4 after = add(gq, back.of[0][n][half]);
                store4(gq_out + scalar, after);
#if REDUCED
                store_gradients(gradients, b.global(row), 0, channel, after);
#endif
            });
        });
    }
    __syncthreads();
    split_in_place<2 * MOST_F>(b.both, 3 * TILE / 2, 2 * FEATURES);
    __syncthreads();
    each_block([&](int, int block, int channel) {
        Sums<3, 1> sums;
        multiply(sums, b.both, own.mix_back, 2 * FEATURES, &block);
        each_row([&](int half, int row) {
            if (!b.has(row)) return;
            long long vector = 3 * b.global(row) * FEATURES + channel;
#pragma unroll
            for (int c = 0; c < 3; c++) {
                float4 g = sums.of[c][0][half];
                if (!LAST) g = add(g, load4(gmu + vector + c * FEATURES));
                store4(gmu_out + vector + c * FEATURES, g);
#if REDUCED
                store_gradients(gradients, b.global(row), 1 + c, channel, g);
#endif
            }
        });
    });
    // The next tile comes where this one's last factor is.
    __syncthreads();
}

// The readout of the q in `scalars`, as numbers: energies of atoms, and g_q, which is kept. Hidden layers lie in `vectors`.
__device__ inline void read_out(const Parameters& p, const Work& b, const TiledReadout& readout)
{
    auto layer = [&](int d) { return Rows{b.vectors.at + d * TILE * b.vectors.stride, nullptr, b.vectors.stride}; };
    __syncthreads();
    split_in_place<MOST_F>(b.scalars, TILE / 2, FEATURES);
    __syncthreads();
#pragma unroll 1
    for (int d = 0; d < readout.count; d++) {
        const Tiles& dense = readout.layers[d];
        Rows from = d == 0 ? b.scalars : b.hidden, to = layer(d);
        dense_tile(from, dense, d == 0 ? FEATURES : readout.layers[d - 1].outputs,
                   [&](int row, int column, float4 h) { store4(to.row(row) + column, h); });
        __syncthreads();
        if (d + 1 < readout.count)
            split_rows<MOST_F>(b.hidden, TILE / 2, dense.outputs, [&](int row, int k) { return silu4(*(const float4*)(to.row(row) + k)); });
        else {
            for (int row = warp_of_block(); row < TILE; row += TILE_WARPS) {
                float sum = 0.0f;
                for (int k = lane_of_tile(); k < dense.outputs; k += 32) sum = fmaf(readout.last_weight[k], silu(to.row(row)[k]), sum);
                for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_xor_sync(FULL, sum, offset);
                if (lane_of_tile() == 0 && b.has(row)) p.energies[atom_of(p, b.first + row)] = sum + readout.last_bias;
            }
            split_rows<MOST_F>(b.hidden, TILE / 2, dense.outputs, [&](int row, int k) {
                return mul(load4(readout.last_weight + k), silu_slope4(*(const float4*)(to.row(row) + k)));
            });
        }
        __syncthreads();
    }
#pragma unroll 1
    for (int d = readout.count - 1; d > 0; d--) {
        // Where the hidden layer was that is no longer needed.
        Rows before = layer(d - 1), to = layer(d);
        dense_tile(b.hidden, readout.back[d], readout.layers[d].outputs, [&](int row, int column, float4 g) {
            store4(to.row(row) + column, mul(silu_slope4(*(const float4*)(before.row(row) + column)), g));
        });
        __syncthreads();
        split_rows<MOST_F>(b.hidden, TILE / 2, readout.layers[d - 1].outputs, [&](int row, int k) { return *(const float4*)(to.row(row) + k); });
        __syncthreads();
    }
    multiply_own(b.hidden, readout.back[0], readout.layers[0].outputs, [&](int n, int, const float4* sums) {
        each_row([&](int half, int) { kept(b, KEEP_GQ, n, half) = sums[half]; });
    });
    // `vectors` is free for something else.
    __syncthreads();
}

// From q and μ behind the last layer's messages to energies, and back to the gradients of both, which take their places.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS)
turn(Parameters p, const __grid_constant__ Update own, const __grid_constant__ TiledReadout readout, float* q, float* mu, uint2* gradients,
     float4* room)
{
    DYNAMIC_SHARED(float, memory);
    if (p.control->status != 0) return;
    Work b = make_work(p, memory, room);
    for (b.first = blockIdx.x * TILE; b.first < p.atoms; b.first += gridDim.x * TILE) {
        load_tile(b, q, mu);
        update_hidden<true>(b, own);
        each_block([&](int n, int block, int channel) {
            Sums<1, 2> a;
            int blocks[2] = {block, 2 * CHANNEL_BLOCKS + block};
            multiply(a, b.hidden, own.second, FEATURES, blocks);
            const float* bias = own.second.bias + channel;
            each_group([&](int first) {
                Taken<6> vectors = take<6>(b, KEEP_V, n, first);
                group_rows(first, [&](int half, int row) {
                    const float4 *v = vectors.of[half % TOGETHER], *y = v + 3;
                    float4 a3 = add(load4(bias + 2 * FEATURES), a.of[0][1][half]);
                    kept(b, KEEP_A3, n, half) = a3;
                    float4 before = *(const float4*)(q + b.global(row) * FEATURES + channel);
                    store4(b.scalars.row(row) + channel, add(before, fma4(a3, dot3(v, y), add(load4(bias), a.of[0][0][half]))));
                });
            });
        });
        read_out(p, b, readout);
        each_block([&](int n, int, int channel) {
            each_group([&](int first) {
                Taken<6> vectors = take<6>(b, KEEP_V, n, first);
                group_rows(first, [&](int half, int row) {
                    const float4 *v = vectors.of[half % TOGETHER], *y = v + 3;
                    float4 gq = kept(b, KEEP_GQ, n, half);
                    float* to = b.wide.row(row) + channel;
                    store4(to, gq);
                    store4(to + FEATURES, zero4());
                    store4(to + 2 * FEATURES, mul(gq, dot3(v, y)));
                });
            });
        });
        update_back<true>(b, own, nullptr, q, mu, gradients);
    }
}

// The way back between two exchanges: from the gradients of what atoms sent, `gsent`, and of q and μ before the messages, `gq` and
// `gmu`, to those of q and μ behind the messages of the layer below, which take the places of `q` and `mu`.
extern "C" __global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS)
between_back(Parameters p, const __grid_constant__ Update own, const __grid_constant__ Context next, const float* gsent,
             const float* hidden, const float* gq, const float* gmu, float* q, float* mu, uint2* gradients, float4* room)
{
    DYNAMIC_SHARED(float, memory);
    if (p.control->status != 0) return;
    Work b = make_work(p, memory, room);
    for (b.first = blockIdx.x * TILE; b.first < p.atoms; b.first += gridDim.x * TILE) {
        split_rows<3 * MOST_F>(b.wide, TILE / 2, 3 * FEATURES, [&](int row, int k) {
#if REDUCED
            return load4(given_back(gsent, b.global(row), k));
#else
            return load4(gsent + b.global(row) * 3 * FEATURES + k);
#endif
        });
        __syncthreads();
        multiply_own(b.wide, next.second_back, 3 * FEATURES, [&](int, int channel, const float4* sums) {
            each_row([&](int half, int row) {
                float4 h = load4(hidden + b.global(row) * FEATURES + channel);
                store4(b.hidden.row(row) + channel, mul(silu_slope4(h), sums[half]));
            });
        });
        split_hidden(b);
        multiply_own(b.hidden, next.first_back, FEATURES, [&](int n, int channel, const float4* sums) {
            each_row([&](int half, int row) {
                float4 before = load4(gq + b.global(row) * FEATURES + channel);
                kept(b, KEEP_GQ, n, half) = add(before, sums[half]);
            });
        });
        load_tile(b, q, mu);
        update_hidden<true>(b, own);
        each_block([&](int n, int block, int channel) {
            Sums<1, 2> a;
            int blocks[2] = {CHANNEL_BLOCKS + block, 2 * CHANNEL_BLOCKS + block};
            multiply(a, b.hidden, own.second, FEATURES, blocks);
            const float* bias = own.second.bias + channel;
            each_group([&](int first) {
                Taken<6> vectors = take<6>(b, KEEP_V, n, first);
                Taken<1> scalars = take<1>(b, KEEP_GQ, n, first);
                group_rows(first, [&](int half, int row) {
                    const float4 *v = vectors.of[half % TOGETHER], *y = v + 3;
                    float4 g[3], scalar = scalars.of[half % TOGETHER][0];
                    kept(b, KEEP_A2, n, half) = add(load4(bias + FEATURES), a.of[0][0][half]);
                    kept(b, KEEP_A3, n, half) = add(load4(bias + 2 * FEATURES), a.of[0][1][half]);
                    const float* from = gmu + 3 * b.global(row) * FEATURES + channel;
#pragma unroll
                    for (int c = 0; c < 3; c++) g[c] = load4(from + c * FEATURES);
                    float* to = b.wide.row(row) + channel;
                    store4(to, scalar);
                    store4(to + FEATURES, dot3(g, y));
                    store4(to + 2 * FEATURES, mul(scalar, dot3(v, y)));
                });
            });
        });
        update_back<false>(b, own, gmu, q, mu, gradients);
    }
}
