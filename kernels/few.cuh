// Dense layers of a cluster: each block computes its own part of the outputs, for the few atoms of the cluster.
#pragma once
#include "cluster.cuh"
#include "update.cuh"

// Channels that a block owns, of every F of them.
#define OWN (FEATURES / CLUSTER)
#define FEW_THREADS (FEATURES < 128 ? 2 * FEATURES : 512)

// One layer: weights for both directions, see src/backend/cuda/weights.rs, and what the adjoint needs, [N][…].
struct Layer {
    const float* table;
    const float *context[2], *context_bias[2], *context_back[2];
    const float *mix, *mix_back;
    const float *update[2], *update_bias[2], *update_back[2];
    float *sent, *context_hidden, *mu, *vectors, *hidden, *coefficients;
    Mixing mixing;
    float epsilon;
};

// Hidden layers of the readout, and its last one.
struct Readout {
    const float *weights[4], *bias[4], *back[4];
    const float* last_weight;
    float last_bias;
    int layers;
    int widths[4];
};

static_assert(sizeof(Layer) == LAYER_BYTES && sizeof(Readout) == READOUT_BYTES,
              "host and device disagree on what they share");

// A cluster, its atoms, and what this block and thread have to do with them.
struct Team {
    int rank;
    int group;         // atoms that a cluster may have
    int first, atoms;  // this cluster's
    bool mine;         // this thread owns a channel of an atom
    int local, atom;   // that atom, counted in the cluster and in the system
    int own, channel;  // that channel, counted in the block and among all
    // Shared memory, rows of all F channels for each atom of the cluster.
    float* wide;       // [group][3][2F]
    float* scalars;    // [group][2F]
    float* hidden;     // [group][F]
    float* gradients;  // [group][3F]
    float* parts;      // sums over parts of what is summed over
};

__device__ inline Team make_team(const Parameters& p, int group)
{
    DYNAMIC_SHARED(float4, memory);
    Team t;
    t.rank = cluster_rank();
    t.group = group;
    t.first = blockIdx.x / CLUSTER * group;
    t.atoms = min(group, p.atoms - t.first);
    t.local = threadIdx.x / OWN;
    t.mine = t.local < t.atoms;
    t.atom = t.first + t.local;
    t.own = threadIdx.x % OWN;
    t.channel = t.rank * OWN + t.own;
    t.wide = (float*)memory;
    t.scalars = t.wide + group * 6 * FEATURES;
    t.hidden = t.scalars + group * 2 * FEATURES;
    t.gradients = t.hidden + group * FEATURES;
    t.parts = t.gradients + group * 3 * FEATURES;
    return t;
}

// Y = X B with B [inputs][parts · width] row-major; a block computes width / CLUSTER columns of each part.
struct Shape {
    int inputs, parts, width;
};

__device__ inline int columns_of(const Shape& s) { return s.parts * (s.width / CLUSTER); }

// Four inputs and four columns of B: what a thread works on at a time.
struct Tile {
    float4 w[4];
};

// Tiles by number: eight neighbouring threads share columns and have 32 inputs.
struct Place {
    int input, column;
};

__device__ inline Place place_of(const Shape& s, int tile)
{
    int quads = columns_of(s) / 4;
    return {tile % 8 * 4 + tile / (8 * quads) * 32, tile / 8 % quads * 4};
}

__device__ inline Tile fetch(const Team& t, const float* b, const Shape& s, int tile)
{
    Place at = place_of(s, tile);
    int own = s.width / CLUSTER, outputs = s.parts * s.width;
    const float* from = b + at.input * outputs + at.column / own * s.width + t.rank * own + at.column % own;
    Tile result;
#pragma unroll
    for (int k = 0; k < 4; k++) result.w[k] = at.input < s.inputs ? load_now(from + k * outputs) : zero4();
    return result;
}

// This thread's first tile: fetched long before it is needed.
__device__ inline Tile fetch(const Team& t, const float* b, const Shape& s) { return fetch(t, b, s, threadIdx.x); }

// X B for `rows` rows of X, `stride` apart in shared memory, in sums of 32 inputs each: parts[inputs / 32][rows][columns].
// `tile` is this thread's first. The block must wait before it adds them up with `total`.
__device__ inline void multiply(const Team& t, Tile tile, const float* b, const Shape& s, const float* x, int stride, int rows)
{
    int columns = columns_of(s), tiles = s.inputs / 4 * (columns / 4), lane = warp_lane();
    bool upper = lane & 4, odd = lane & 2;
    // Whole warps go round, since their lanes exchange sums.
    for (int n = threadIdx.x; n < (tiles + 31) / 32 * 32; n += FEW_THREADS) {
        Tile next = tile;
        if (n + FEW_THREADS < tiles) next = fetch(t, b, s, n + FEW_THREADS);
        Place at = place_of(s, n);
        bool on = n < tiles;
        const float* from = x + (on ? at.input : 0);
        float* to = t.parts + at.input / 32 * rows * columns + at.column + (upper ? 2 : 0) + (odd ? 1 : 0);
#pragma unroll 4
        for (int row = 0; row < rows; row++) {
            float4 v = *(const float4*)(from + row * stride);
            float4 r = fma4(v.w, tile.w[3], fma4(v.z, tile.w[2], fma4(v.y, tile.w[1], scale(v.x, tile.w[0]))));
            // Four sums over 8 lanes in four exchanges: each halving sends what the other half keeps.
            float keep0 = upper ? r.z : r.x, keep1 = upper ? r.w : r.y;
            keep0 += __shfl_xor_sync(FULL, upper ? r.x : r.z, 4);
            keep1 += __shfl_xor_sync(FULL, upper ? r.y : r.w, 4);
            float keep = odd ? keep1 : keep0;
            keep += __shfl_xor_sync(FULL, odd ? keep0 : keep1, 2);
            keep += __shfl_xor_sync(FULL, keep, 1);
            if (on && !(lane & 1)) to[row * columns] = keep;
        }
        tile = next;
    }
}

// One element of X B: the block's own `column` of one of the parts.
__device__ inline float total(const Team& t, const Shape& s, int rows, int row, int part, int column)
{
    int columns = columns_of(s);
    const float* at = t.parts + row * columns + part * (s.width / CLUSTER) + column;
    float sum = at[0];
    for (int k = 1; k < s.inputs / 32; k++) sum += at[k * rows * columns];
    return sum;
}

// The same for this thread's own channel.
__device__ inline float total(const Team& t, const Shape& s, int part)
{
    return total(t, s, t.atoms, t.local, part, t.own);
}
