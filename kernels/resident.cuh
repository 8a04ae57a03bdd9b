// Dense layers of few atoms by clusters that keep all weights, for as few atoms as find room: ARCHITECTURE.md says how.
//
// A cluster takes its own atoms through all dense layers. Each of its blocks owns OWN channels of them. What it needs of a layer's
// weights lies in its shared memory for the whole launch, in tiles of 8 x 8: its own channels against eight of all. A layer goes one
// of two ways, and its transpose the other:
//   gather  every block gives its channels of the inputs to all, and computes its own channels of the outputs
//   spread  every block has its own channels of the inputs, and gives each owner of outputs its part of them
// Rows of products are atoms, or atoms of each component of vectors. Two of them that follow one another are a pair of rows:
// what a lane gives to a product or gets from it, four numbers, belongs to one pair. So factors and sums travel as lanes have
// them. Tensor cores multiply as in mma.cuh. No exchange waits for more than the numbers that it brings.
//
// The numbers of atoms and of clusters are constants here: nearly all places are then known when the kernel is compiled, and of so
// short a step every instruction counts.
#pragma once
#include "cluster.cuh"
#include "mma.cuh"
#include "message.cuh"

#define WARPS (FEW_THREADS / 32)
#define OWN 8
static_assert(FEATURES == OWN * CLUSTER && WARPS == CLUSTER && !STUDENT, "a block owns as many channels as a product has columns");
// Atoms of a cluster, at most.
#define GROUP ((ATOMS + CLUSTERS - 1) / CLUSTERS)
// Messages go through an atom's pairs by turns of sixteen: so many turns at most. Either each of them has a warp of its own, or warps
// share out those that there are.
#define TURNS ((ATOMS + 14) / 16)
#define WARP_A_TURN (GROUP * TURNS <= WARPS)
// Places for a warp's part of what an atom gets. Where turns are shared out this is place warp + atom: from part to part the one or the
// other grows, so that each part has its own, and those of an atom follow one another.
#define PARTS_OF_ATOMS (WARPS + GROUP - 1)
// Numbers of a layer's filter: weights of the own channels as right factors, and the radial functions, see radial.cuh.
#define FILTER_FLOATS (3 * 48 * 4 + 40)
// Pairs of rows of scalars and of vectors.
#define ROWS ((GROUP + 1) / 2)
#define VECTOR_ROWS (3 * ROWS)
// Pairs of atoms of which an atom, or one of the cluster, is the first, at most: the first PAIRS_INSIDE are in shared memory.
#define MOST_PAIRS (ATOMS - 1)
#define ALL_PAIRS (GROUP * MOST_PAIRS)
#define ROOMY (PAIRS_INSIDE >= ALL_PAIRS)
// Floats of a tile of weights, and of a pair of rows of OWN channels.
#define TILE_FLOATS 64
#define PAIR_FLOATS (2 * OWN)

// Numbers that an atom leaves for the way back in each layer, by channels: σ'(h), a2, a3, v, y of its update, what it sends into
// the layer, its μ before it (in the first layer its embedding), and σ'(h) of the context of the layer behind.
#define KEPT_SLOPE 0
#define KEPT_A2 1
#define KEPT_A3 2
#define KEPT_V 3
#define KEPT_Y 6
#define KEPT_X 9
#define KEPT_MU 12
#define KEPT_CONTEXT 15
#define KEPT 16

// Tiles of each layer's weights for eight of all channels: M, U1, U2, W1, W2. The last layer has no context behind it; behind the
// layers is the readout's hidden layer.
#define MIX_TILES 2
#define FIRST_TILES 2
#define SECOND_TILES 3
#define CONTEXT_FIRST_TILES 1
#define CONTEXT_SECOND_TILES 3
#define FIRST_AT (MIX_TILES * CLUSTER * TILE_FLOATS)
#define SECOND_AT (FIRST_AT + FIRST_TILES * CLUSTER * TILE_FLOATS)
#define CONTEXT_FIRST_AT (SECOND_AT + SECOND_TILES * CLUSTER * TILE_FLOATS)
#define CONTEXT_SECOND_AT (CONTEXT_FIRST_AT + CONTEXT_FIRST_TILES * CLUSTER * TILE_FLOATS)
#define LAYER_FLOATS (CONTEXT_SECOND_AT + CONTEXT_SECOND_TILES * CLUSTER * TILE_FLOATS)
#define READOUT_AT ((LAYERS - 1) * LAYER_FLOATS + CONTEXT_FIRST_AT)
// Behind the weights, own channels of biases: of U1, U2, W1, W2 of each layer, then those of the readout's hidden layer and its
// last weights.
#define LAYER_BIASES (8 * OWN)
#define HIDDEN_OWNERS (HIDDEN / OWN)
#define BIASES_AT (READOUT_AT + HIDDEN_OWNERS * TILE_FLOATS)
#define WEIGHT_FLOATS (BIASES_AT + LAYERS * LAYER_BIASES + 2 * OWN)

// The network, see src/backend/cuda/resident.rs.
struct Resident {
    Filter filters[MOST_LAYERS]; // weights of each block's channels, [CLUSTER][3][48]
    float epsilons[MOST_LAYERS];
    const float* weights;   // [CLUSTER][WEIGHT_FLOATS]
    const float* embedding; // [elements][F]
    const float* sent;      // [elements][3F], what atoms send into the first layer
    float* kept;            // [blocks][layers][KEPT][FEW_THREADS]
    float* sums;            // [blocks][layers but the first][pairs][4], gradients of pairs
    float4* pairs;          // [blocks][pairs], those that have no room in shared memory
    float* distances;       // likewise, three numbers each
    float4* words;          // see resident_words.cuh
    unsigned* evaluations;  // so far, in this and earlier launches
    float last_bias;
};

static_assert(sizeof(Resident) == RESIDENT_BYTES, "host and device disagree on what they share");

// Strides of what all atoms have in shared memory, so that lanes which read together meet in no bank.
#define SENDER_STRIDE 56
#define GRADIENT_STRIDE 40

__device__ constexpr int larger(int a, int b) { return a > b ? a : b; }

// Shared memory of a block, where everything begins, in floats. As in src/backend/cuda/resident.rs. Exchanges arrive in four places,
// the first three of which are one for vectors. Each is written again two exchanges later at the earliest. Sums over some of the
// inputs of a layer have the place of what all atoms send each other: nobody needs both.
constexpr int SCALARS = CLUSTER * ROWS * PAIR_FLOATS;
constexpr int WEIGHTS = 4; // behind two barriers
constexpr int VECTORS = WEIGHTS + WEIGHT_FLOATS;
constexpr int THIRD = VECTORS + SCALARS;
constexpr int OTHER = VECTORS + 3 * SCALARS;
constexpr int PARTS_AT = OTHER + SCALARS;
constexpr int ALL = PARTS_AT; // [atoms][SENDER_STRIDE]: x (3), μ (3); or [atoms][GRADIENT_STRIDE]: g_q, g_μ (3)
constexpr int FILTERS = PARTS_AT + larger(WARPS * 3 * 8 * PAIR_FLOATS, SENDER_STRIDE * ATOMS); // [LAYERS][FILTER_FLOATS]
constexpr int OPERAND = FILTERS + LAYERS * FILTER_FLOATS; // a spread layer's inputs, split
constexpr int OPERAND_FLOATS = MIX_TILES * VECTOR_ROWS * PAIR_FLOATS;
constexpr int GATHERED = OPERAND + 2 * OPERAND_FLOATS;  // [PARTS_OF_ATOMS][6][OWN], messages or their adjoint
constexpr int SENT = GATHERED + 6 * OWN * PARTS_OF_ATOMS;  // [GROUP][6][OWN], what the own atoms sent, on the way back
constexpr int PAIRS = SENT + 6 * OWN * GROUP;           // [PAIRS_INSIDE][4]: û from the own atom to the other, its number
constexpr int DISTANCES = PAIRS + 4 * PAIRS_INSIDE;     // [PAIRS_INSIDE][3]: the pair's distance, f_c, its derivative
constexpr int COUNTS = DISTANCES + 3 * PAIRS_INSIDE;    // [GROUP], pairs of each atom
constexpr int FIRSTS = COUNTS + GROUP;                  // [GROUP + 1], its first one
constexpr int SHARES = FIRSTS + GROUP + 1;              // [WARPS], see `share_turns`
constexpr int SPANS = SHARES + WARPS;                   // [GROUP], likewise
constexpr int ENERGIES = SPANS + GROUP;                 // [GROUP]: the own hidden channels' part
constexpr int NOISE = (ENERGIES + GROUP + 3) / 4 * 4;   // [ATOMS][3], float64: the bath's random numbers
constexpr int REST = NOISE + (6 * ATOMS + 3) / 4 * 4;

__device__ inline float* room(int at)
{
    DYNAMIC_SHARED(float4, memory);
    return (float*)memory + at;
}

__device__ inline Exchange make_exchange(int count) { return {(unsigned long long*)room(0), count}; }

// The cluster's atoms.
struct Atoms {
    int first, count;
};

__device__ inline Atoms own_atoms()
{
    int cluster = here(blockIdx.x) / CLUSTER, first = cluster * ATOMS / CLUSTERS;
    return {first, (cluster + 1) * ATOMS / CLUSTERS - first};
}

// Thread (atom, channel) owns that channel of the atom, and has its places in what all owners share. Lanes of a quad have a pair
// of atoms, and channels c and c + 4 of them: a left factor of a product. Warps beyond the last atom own nothing.
struct Owner {
    int atom, channel;  // counted in the cluster, and in the block
    bool sends;         // some lane of its quad is an atom's
    int element, input; // of a pair of rows, as products have their sums and take their left factors
    __device__ bool mine() const { return atom < own_atoms().count; }
};

#define OWNING_THREADS ((GROUP + 3) / 4 * 32)
__device__ inline bool owns() { return threadIdx.x < OWNING_THREADS; }

__device__ inline Owner make_owner()
{
    // Made again in each step, so that nothing of it is kept through the ends of steps.
    int thread = thread_here(), lane = thread & 31;
    Owner o;
    o.atom = thread / 32 * 4 + lane / 16 * 2 + (lane & 1);
    o.channel = lane / 4 % 4 + (lane / 2 & 1) * 4;
    o.sends = o.atom / 2 < ROWS;
    int at = o.atom / 2 * PAIR_FLOATS + o.channel / 2 * 4;
    o.element = at + o.atom % 2 * 2 + o.channel % 2;
    o.input = at + o.channel % 2 * 2 + o.atom % 2;
    return o;
}

// Before numbers of an exchange go out: so many floats are to come.
__device__ inline void open(const Exchange& e, int floats)
{
    if (threadIdx.x == 0) expect(e.now(), floats * (int)sizeof(float));
}

__device__ inline void wait(const Exchange& e) { await(e.now(), e.count >> 1 & 1); }

// Gives a number of each owner to all blocks, into `region` of so many pairs of rows a block, `first` + that of its atom. Owning
// warps must call it.
__device__ inline void give(const Exchange& e, const Owner& o, int region, int pairs, int first, float value)
{
    float4 all;
    all.x = __shfl_sync(FULL, value, 0, 4);
    all.y = __shfl_sync(FULL, value, 1, 4);
    all.z = __shfl_sync(FULL, value, 2, 4);
    all.w = __shfl_sync(FULL, value, 3, 4);
    if (!o.sends) return;
    int at = region + (here(cluster_rank()) * pairs + first + o.atom / 2) * PAIR_FLOATS + o.channel % 4 * 4;
#pragma unroll
    for (int k = 0; k < CLUSTER / 4; k++) send_into(window_of(4 * k + here(threadIdx.x) % 4), at * 4, all, (e.count & 1) * 8);
}

// Leaves a number of an owner as an input of a layer that is spread: what tensor cores take of it, and the rest.
__device__ inline void leave(const Owner& o, int pairs, int tile, int first, float value)
{
    if (!o.sends) return;
    float *at = room(OPERAND + (tile * pairs + first) * PAIR_FLOATS) + o.input, high = high_part(value);
    at[0] = high;
    at[OPERAND_FLOATS] = value - high;
}

// In how many parts a gathered layer's inputs are summed, of `senders` blocks.
__device__ constexpr int slabs_of(int pairs, int senders)
{
    return WARPS / ((pairs + 7) / 8) < senders ? WARPS / ((pairs + 7) / 8) : senders;
}

// A gathered layer: parts[slab][N][pairs of rows, by 8][PAIR_FLOATS] from what has arrived in `region`. The block must wait for it.
template <int N, int PAIRS_OF_ROWS, int SENDERS_OF_ROWS> __device__ inline void gather_layer(int region, const float* weights)
{
    constexpr int blocks = (PAIRS_OF_ROWS + 7) / 8, slabs = slabs_of(PAIRS_OF_ROWS, SENDERS_OF_ROWS);
    constexpr int most = (SENDERS_OF_ROWS + slabs - 1) / slabs;
    int thread = thread_here(), warp = thread / 32, lane = thread % 32, slab = warp / blocks, block = warp % blocks;
    if (slab >= slabs) return;
    int from = SENDERS_OF_ROWS * slab / slabs, to = SENDERS_OF_ROWS * (slab + 1) / slabs;
    const float4* x = (const float4*)room(region) + from * PAIRS_OF_ROWS * 4 + block * 32 + lane;
    const float* w = weights + from * N * TILE_FLOATS + lane % 4 * 8 + lane / 4;
    float4 sums[N];
#pragma unroll
    for (int n = 0; n < N; n++) sums[n] = zero4();
#pragma unroll 2
    for (int k = 0; k < most; k++) {
        if (SENDERS_OF_ROWS % slabs != 0 && from + k >= to) break;
        // Behind the last rows is something else.
        float4 left = PAIRS_OF_ROWS % 8 == 0 || block * 32 + lane < PAIRS_OF_ROWS * 4 ? x[k * PAIRS_OF_ROWS * 4] : zero4();
#pragma unroll
        for (int n = 0; n < N; n++) add_product(sums[n], left, w[(k * N + n) * TILE_FLOATS], w[(k * N + n) * TILE_FLOATS + 32]);
    }
#pragma unroll
    for (int n = 0; n < N; n++) ((float4*)room(PARTS_AT))[((slab * N + n) * blocks + block) * 32 + lane] = sums[n];
}

// An owner's element of its result.
template <int N, int PAIRS_OF_ROWS, int SENDERS_OF_ROWS> __device__ inline float gathered_sum(const Owner& o, int first, int n)
{
    constexpr int blocks = (PAIRS_OF_ROWS + 7) / 8, slabs = slabs_of(PAIRS_OF_ROWS, SENDERS_OF_ROWS);
    const float* at = room(PARTS_AT + n * blocks * 8 * PAIR_FLOATS + first * PAIR_FLOATS) + o.element;
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int slab = 0; slab < slabs; slab++) sums[slab % 4] += at[slab * N * blocks * 8 * PAIR_FLOATS];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// A layer that is spread, to OWNERS blocks, a warp's part to each. The block must have waited for its inputs.
template <int N, int PAIRS_OF_ROWS, int OWNERS>
__device__ inline void spread_layer(const Exchange& e, int region, const float* weights)
{
    int thread = thread_here(), owner = thread / 32, lane = thread % 32;
    if (owner >= OWNERS) return;
    float2 w[N];
#pragma unroll
    for (int n = 0; n < N; n++)
        w[n] = *(const float2*)(weights + (owner * N + n) * TILE_FLOATS + lane / 4 * 8 + lane % 4 * 2);
    const float4 *high = (const float4*)room(OPERAND) + lane, *low = high + OPERAND_FLOATS / 4;
    Window to = window_of(owner);
    int at = (region + here(cluster_rank()) * PAIRS_OF_ROWS * PAIR_FLOATS + lane * 4) * 4;
#pragma unroll 2
    for (int block = 0; block < (PAIRS_OF_ROWS + 7) / 8; block++) {
        float4 sum = zero4();
#pragma unroll
        for (int n = 0; n < N; n++) {
            int k = n * PAIRS_OF_ROWS * 4 + block * 32;
            add_product(sum, high[k], low[k], w[n].x, w[n].y);
        }
        if (block * 8 + lane / 4 < PAIRS_OF_ROWS) send_into(to, at + block * 512, sum, (e.count & 1) * 8);
    }
}

// An owner's element of its result, when it has arrived.
template <int PAIRS_OF_ROWS> __device__ inline float spread_sum(const Owner& o, int region, int first)
{
    const float* at = room(region + first * PAIR_FLOATS) + o.element;
    float sums[4];
#pragma unroll
    for (int k = 0; k < 4; k++) sums[k] = at[k * PAIRS_OF_ROWS * PAIR_FLOATS];
#pragma unroll
    for (int k = 4; k < CLUSTER; k++) sums[k % 4] += at[k * PAIRS_OF_ROWS * PAIR_FLOATS];
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// Floats that arrive in a layer's exchange.
__device__ constexpr int arriving(int pairs, int senders) { return senders * pairs * PAIR_FLOATS; }

// σ and its derivative, to a few units in the last place.
struct Sigmoid {
    float value, slope;
};

__device__ inline Sigmoid sigmoid(float x)
{
    float s = reciprocal(1.0f + two_to(-1.44269504f * x));
    return {x * s, s * (1.0f + x * (1.0f - s))};
}
