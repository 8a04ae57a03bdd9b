// Dense layers of a cluster: each block computes its own part of the outputs, for the few atoms of the cluster. A block has
// FEW_THREADS threads.
#pragma once
#include "cluster.cuh"
#include "mma.cuh"
#include "update.cuh"

#define WARPS (FEW_THREADS / 32)
// Channels that a block owns, of every F of them.
#define OWN (FEATURES / CLUSTER)
static_assert(OWN % 4 == 0, "the lanes of a quad own channels of the same atom");

// One layer: weights for both directions, see src/backend/cuda/weights.rs, and what other atoms take of it, [N][…].
struct Layer {
    const float* table;
    const float *context[2], *context_bias[2], *context_back[2];
    const float *mix, *mix_back;
    const float *update[2], *update_bias[2], *update_back[2];
    float *sent, *mu;
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

// Numbers that a layer leaves for the way back, of each atom and channel: h, a2, a3, v, y, and h of the next layer's context.
#define KEPT 10

// The whole network, and what its kernel works on.
struct Network {
    Layer layers[MOST_LAYERS];
    Readout readout;
    const float* embedding;  // painn: q of each element
    float* gradients[2][2];  // ∂E/∂q [N][F] and ∂E/∂μ [N][3][F] after the messages of a layer; layers take turns
    unsigned* barrier;       // of all blocks
    int count;               // layers
    int group;               // atoms that a cluster may have
    int members;             // warps that share an atom's pairs
    int room;                // pairs for which a block has room in its shared memory
};

static_assert(sizeof(Layer) == LAYER_BYTES && sizeof(Readout) == READOUT_BYTES && sizeof(Network) == NETWORK_BYTES,
              "host and device disagree on what they share");

// A cluster, its atoms, and what this block and thread have to do with them.
struct Team {
    int rank;
    int group, members; // as in Network
    int first, atoms;  // this cluster's
    bool mine;         // this thread owns a channel of an atom
    int local, atom;   // that atom, counted in the cluster and in the system
    int own, channel;  // that channel, counted in the block and among all
    Exchange exchange;
    // Shared memory, rows of all F channels for each atom of the cluster.
    float* wide;       // [group][3][2F]
    float* scalars;    // [group][2F]
    float* hidden;     // [group][F]
    float* gradients;  // [group][3F]
    float* parts;      // sums over parts of what is summed over
    float* kept;       // [layers][KEPT][group][OWN], what layers leave for the way back
    // The pairs of the cluster's atoms, found by each block for itself: atom by atom from `begins` on, so many as `counts`
    // says, and the sums of their gradients in this block's channels. In shared memory if the list fits there; where it does
    // not, pairs are in global memory, the same from all blocks, and there are no `sums`.
    unsigned *begins, *counts; // [group]
    Pair* pairs;
    float4* sums;
    char* rest; // shared memory behind all that
};

// `exchanges`: done so far. Made again for each layer, so that it needs no registers between them.
__device__ inline Team make_team(const Parameters& p, const Network& network, int exchanges)
{
    DYNAMIC_SHARED(float4, memory);
    Team t;
    int group = here(network.group);
    t.rank = cluster_rank();
    t.group = group;
    t.members = network.members;
    t.first = blockIdx.x / CLUSTER * group;
    t.atoms = min(group, p.atoms - t.first);
    int thread = thread_here();
    t.local = thread / OWN;
    t.mine = t.local < t.atoms;
    t.atom = t.first + t.local;
    t.own = thread % OWN;
    t.channel = t.rank * OWN + t.own;
    t.exchange = {(unsigned long long*)memory, exchanges};
    t.wide = (float*)(memory + 1);
    t.scalars = t.wide + group * 6 * FEATURES;
    t.hidden = t.scalars + group * 2 * FEATURES;
    t.gradients = t.hidden + group * FEATURES;
    t.parts = t.gradients + group * 3 * FEATURES;
    // As in src/backend/cuda/few.rs.
    int parts = max(FEATURES / 32 * 6 * group, max(WARPS, group) * 6) * OWN;
    t.kept = t.parts + parts;
    t.begins = (unsigned*)(t.kept + network.count * KEPT * group * OWN);
    t.counts = t.begins + group;
    t.pairs = (Pair*)(t.begins + (2 * group + 3) / 4 * 4);
    t.sums = (float4*)(t.pairs + network.room);
    t.rest = (char*)(t.sums + network.room);
    unsigned begin = p.rows[t.first];
    if (p.rows[t.first + t.atoms] - begin > (unsigned)network.room) {
        t.pairs = p.pairs + begin;
        t.sums = nullptr;
    }
    return t;
}

// Gives a number of this thread's channel to all blocks, where the channel is some atom's. Every thread must call it.
__device__ inline void give(const Team& t, float* at, float value)
{
    // Warps without any have nothing to do.
    if (thread_here() / 32 * 32 / OWN < t.atoms) hand_out(t.exchange.now(), at, value, t.mine);
}

// Y = X B with B [inputs][parts · width]; a block computes width / CLUSTER columns of each part, `own` ones.
struct Shape {
    int inputs, parts, width;
};

__device__ inline int columns_of(const Shape& s) { return s.parts * (s.width / CLUSTER); }

// A block's columns in panels of 32 inputs x 16 columns, what a warp works on at a time. B lies panel by panel, see
// src/backend/cuda/weights.rs.
struct Panel {
    float4 w[4];
};

__device__ inline int panels_across(const Shape& s) { return (columns_of(s) + 15) / 16; }

__device__ inline Panel fetch(int rank, const float* b, const Shape& s, int panel)
{
    int across = panels_across(s), count = s.inputs / 32 * across;
    const float* from = b + ((long long)rank * count + panel) * 512 + warp_lane() * 4;
    Panel result;
#pragma unroll
    for (int k = 0; k < 4; k++) result.w[k] = panel < count ? load_now(from + k * 128) : zero4();
    return result;
}

// A layer to come: weights and shape.
struct Dense {
    const float* b;
    Shape s;
};

// This warp's first panel: fetched long before it is needed.
__device__ inline Panel fetch(const Team& t, const Dense& d) { return fetch(t.rank, d.b, d.s, thread_here() / 32); }

// A panel's part of X B for `rows` rows of X, sums over its 32 inputs, to as many of its columns as there are.
__device__ inline void multiply_rows(const Panel& panel, const float* x, int stride, float* to, int columns, int left, int rows)
{
    int g = warp_lane() / 4, c = warp_lane() % 4;
#pragma unroll 1
    for (int first = 0; first < rows; first += 8) {
        const float* from = x + (first + g) * stride + 8 * c;
        bool on = first + g < rows;
        float4 v0 = on ? *(const float4*)from : zero4(), v1 = on ? *(const float4*)(from + 4) : zero4();
        float4 sum = zero4();
        add_product(sum, panel.w[0], v0.x, v0.y);
        add_product(sum, panel.w[1], v0.z, v0.w);
        add_product(sum, panel.w[2], v1.x, v1.y);
        add_product(sum, panel.w[3], v1.z, v1.w);
        int row = first + 2 * c;
        float* at = to + row * columns + g;
        if (g < left) {
            if (row < rows) at[0] = sum.x;
            if (row + 1 < rows) at[columns] = sum.y;
        }
        if (g + 8 < left) {
            if (row < rows) at[8] = sum.z;
            if (row + 1 < rows) at[columns + 8] = sum.w;
        }
    }
}

// X B for `rows` rows of X, `stride` apart in shared memory, in sums of 32 inputs each: parts[inputs / 32][rows][columns].
// `panel` is this warp's first.
__device__ inline void multiply_panels(const Team& t, Panel panel, const Dense& layer, const float* x, int stride, int rows)
{
    int columns = columns_of(layer.s), across = panels_across(layer.s), count = layer.s.inputs / 32 * across;
    for (int n = thread_here() / 32; n < count; n += WARPS) {
        Panel then = panel;
        if (n + WARPS < count) then = fetch(t.rank, layer.b, layer.s, n + WARPS);
        int slab = n / across, column = n % across * 16;
        multiply_rows(panel, x + slab * 32, stride, t.parts + slab * rows * columns + column, columns, columns - column, rows);
        panel = then;
    }
}

// The same, and the block waits for all of it; returns this warp's first panel of the layer that comes next, which is on its
// way then. Inlined, for a function would not return before it has come: that costs more than the longer way through the
// instructions.
__device__ inline Panel multiply(const Team& t, const Panel& panel, const Dense& layer, const float* x, int stride, int rows,
                                 const Dense& next)
{
    multiply_panels(t, panel, layer, x, stride, rows);
    Panel then = fetch(t, next);
    __syncthreads();
    return then;
}

// Where this thread's channel has the numbers that layer l leaves: `KEPT` of them, a `kept_stride` apart.
__device__ inline float* kept_of(const Team& t, int l) { return t.kept + l * KEPT * t.group * OWN + threadIdx.x; }
__device__ inline int kept_stride(const Team& t) { return t.group * OWN; }

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
