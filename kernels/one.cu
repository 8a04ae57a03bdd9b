// Steps of a system that one cluster takes as a whole: one kernel takes one after the other for as long as the list holds.
//
// No block waits for more than the exchanges of dense layers, since each has its own channels of all atoms. Pairs, and both ends
// of a step, are every block's own work, to the same bits; the first one brings the atoms back in the end. Forces are added up by
// blocks in turns, who give them to all. Formulas as in ARCHITECTURE.md.
#include "one_messages.cuh"
#include "few_ends.cuh"

// What an owner has of its atom and channel from layer to layer: q, μ, and the energy's gradients of both on the way back.
struct Passing {
    float q, m[3];
    float gq, gm[3];
    int exchanges; // of the cluster, so far
};

// What a layer's update leaves for the way back.
struct Left {
    float slope, a2, a3, v[3], y[3];
};

// Where this thread has what its channel leaves in layer l, KEPT numbers FEW_THREADS apart.
__device__ inline float* kept_of(const OneNetwork& network, int l)
{
    return network.kept + (here(cluster_rank()) * LAYERS + l) * KEPT * FEW_THREADS + thread_here();
}

__device__ inline Left take_left(const OneNetwork& network, int l)
{
    const float* kept = kept_of(network, l);
    Left left;
    left.slope = kept[KEPT_SLOPE * FEW_THREADS];
    left.a2 = kept[KEPT_A2 * FEW_THREADS];
    left.a3 = kept[KEPT_A3 * FEW_THREADS];
#pragma unroll
    for (int k = 0; k < 3; k++) {
        left.v[k] = kept[(KEPT_V + k) * FEW_THREADS];
        left.y[k] = kept[(KEPT_Y + k) * FEW_THREADS];
    }
    return left;
}

// What an atom sends into a layer, for its neighbours.
__device__ inline void set_sender(const Owner& o, const float* x, const float* mu)
{
    if (!o.mine()) return;
    float* to = room(SENDERS) + o.atom * SENDER_STRIDE + o.channel;
#pragma unroll
    for (int k = 0; k < 3; k++) {
        to[k * OWN] = x[k];
        to[(3 + k) * OWN] = mu[k];
    }
}

// Layer l's messages and update, and what atoms send into the next layer.
__device__ inline void forward(const Parameters& p, const OneNetwork& network, int l, Passing& own)
{
    const Owner o = make_owner();
    Exchange e = make_exchange(own.exchanges);
    bool last = l + 1 == LAYERS;
    const float *w = room(WEIGHTS) + l * LAYER_FLOATS, *biases = room(WEIGHTS + BIASES_AT) + l * LAYER_BIASES + o.channel;
    float *kept = kept_of(network, l), *next = kept + KEPT * FEW_THREADS;

    messages(l == 0);
    open(e, arriving(VECTOR_ROWS, CLUSTER));
    __syncthreads();
    if (owns()) {
        const float* sums = room(GATHERED) + o.atom * 6 * OWN + o.channel;
        own.q += sums[0];
#pragma unroll
        for (int k = 0; k < 3; k++) {
            own.m[k] += sums[(1 + k) * OWN];
            give(e, o, VECTORS, VECTOR_ROWS, k * ROWS, own.m[k]);
        }
    }
    wait(e);
    e.count++;
    gather_layer<MIX_TILES, VECTOR_ROWS, CLUSTER>(VECTORS, w);
    open(e, arriving(ROWS, CLUSTER));
    __syncthreads();
    float v[3], y[3], s = 0.0f;
    if (owns()) {
        float square = network.epsilons[l];
#pragma unroll
        for (int k = 0; k < 3; k++) {
            v[k] = gathered_sum<MIX_TILES, VECTOR_ROWS, CLUSTER>(o, k * ROWS, 0);
            y[k] = gathered_sum<MIX_TILES, VECTOR_ROWS, CLUSTER>(o, k * ROWS, 1);
            square += v[k] * v[k];
        }
        leave(o, ROWS, 0, 0, own.q);
        leave(o, ROWS, 1, 0, square * reciprocal_root(square));
    }
    __syncthreads();
    spread_layer<FIRST_TILES, ROWS, CLUSTER>(e, OTHER, w + FIRST_AT);
    if (owns()) {
#pragma unroll
        for (int k = 0; k < 3; k++) {
            s += v[k] * y[k];
            kept[(KEPT_V + k) * FEW_THREADS] = v[k];
            kept[(KEPT_Y + k) * FEW_THREADS] = y[k];
        }
        wait(e);
    } else if (!last) {
        // Who owns nothing makes the next layer's filters meanwhile.
        make_filters<FEW_THREADS - OWNING_THREADS>(p, network, l + 1, thread_here() - OWNING_THREADS);
    }
    e.count++;
    open(e, arriving(ROWS, CLUSTER));
    if (owns()) {
        Sigmoid h = sigmoid(biases[0] + spread_sum<ROWS>(o, OTHER, 0));
        give(e, o, VECTORS, ROWS, 0, h.value);
        kept[KEPT_SLOPE * FEW_THREADS] = h.slope;
    }
    wait(e);
    e.count++;
    gather_layer<SECOND_TILES, ROWS, CLUSTER>(VECTORS, w + SECOND_AT);
    if (!last) open(e, arriving(ROWS, CLUSTER));
    __syncthreads();
    if (owns()) {
        float a[3];
#pragma unroll
        for (int n = 0; n < 3; n++) a[n] = biases[(1 + n) * OWN] + gathered_sum<SECOND_TILES, ROWS, CLUSTER>(o, 0, n);
        own.q += a[0] + a[2] * s;
        leave(o, ROWS, 0, 0, own.q);
#pragma unroll
        for (int k = 0; k < 3; k++) own.m[k] += a[1] * y[k];
        kept[KEPT_A2 * FEW_THREADS] = a[1];
        kept[KEPT_A3 * FEW_THREADS] = a[2];
    }
    own.exchanges = e.count;
    if (last) return;
    // x = W2 σ(W1 q + b1) + b2 of the next layer.
    __syncthreads();
    spread_layer<CONTEXT_FIRST_TILES, ROWS, CLUSTER>(e, THIRD, w + CONTEXT_FIRST_AT);
    Filters filters = ask_for_filters(filters_of(network, l + 1));
    if (owns()) wait(e);
    e.count++;
    open(e, arriving(ROWS, CLUSTER));
    if (owns()) {
        Sigmoid h = sigmoid(biases[4 * OWN] + spread_sum<ROWS>(o, THIRD, 0));
        give(e, o, OTHER, ROWS, 0, h.value);
        kept[KEPT_CONTEXT * FEW_THREADS] = h.slope;
    }
    wait(e);
    e.count++;
    own.exchanges = e.count;
    gather_layer<CONTEXT_SECOND_TILES, ROWS, CLUSTER>(OTHER, w + CONTEXT_SECOND_AT);
    __syncthreads();
    if (owns()) {
        float x[3];
#pragma unroll
        for (int n = 0; n < 3; n++) x[n] = biases[(5 + n) * OWN] + gathered_sum<CONTEXT_SECOND_TILES, ROWS, CLUSTER>(o, 0, n);
        set_sender(o, x, own.m);
#pragma unroll
        for (int n = 0; n < 3; n++) {
            next[(KEPT_X + n) * FEW_THREADS] = x[n];
            next[(KEPT_MU + n) * FEW_THREADS] = own.m[n];
        }
    }
    __syncthreads();
    put_filters(PARTS_AT, filters);
    __syncthreads();
}

// The readout, whose hidden channels are owned by the first blocks: its part of the energy, and g_q of all channels.
__device__ inline void read_out(Passing& own)
{
    const Owner o = make_owner();
    Exchange e = make_exchange(own.exchanges);
    const float *w = room(WEIGHTS + READOUT_AT), *biases = room(WEIGHTS + BIASES_AT + LAYERS * LAYER_BIASES) + o.channel;
    bool hidden = here(cluster_rank()) < HIDDEN_OWNERS;
    // What a block expects, it must before anybody can have gone two exchanges further.
    open(e, hidden ? arriving(ROWS, CLUSTER) : 0);
    __syncthreads();
    spread_layer<1, ROWS, HIDDEN_OWNERS>(e, THIRD, w);
    if (owns() && hidden) wait(e);
    e.count++;
    open(e, arriving(ROWS, HIDDEN_OWNERS));
    if (owns()) {
        float energy = 0.0f;
        if (hidden) {
            float h = biases[0] + spread_sum<ROWS>(o, THIRD, 0), last = biases[OWN];
            Sigmoid sigma = sigmoid(h);
            give(e, o, OTHER, ROWS, 0, last * sigma.slope);
            energy = last * sigma.value;
        }
        // Over the channels of an atom.
        for (int offset = 2; offset <= 8; offset <<= 1) energy += __shfl_xor_sync(FULL, energy, offset);
        if (o.mine() && o.channel == 0) room(ENERGIES)[o.atom] = energy;
    }
    wait(e);
    e.count++;
    own.exchanges = e.count;
    gather_layer<1, ROWS, HIDDEN_OWNERS>(OTHER, w);
    __syncthreads();
    own.gq = owns() ? gathered_sum<1, ROWS, HIDDEN_OWNERS>(o, 0, 0) : 0.0f;
    own.gm[0] = own.gm[1] = own.gm[2] = 0.0f;
}

// Layer l's update and messages on the way back, and what its context does to the layer before. `left` is of this layer's update,
// then of that of the layer before.
__device__ inline void backward(const OneNetwork& network, int l, Left& left, Passing& own)
{
    const Owner o = make_owner();
    Exchange e = make_exchange(own.exchanges);
    bool last = l + 1 == LAYERS;
    const float *w = room(WEIGHTS) + l * LAYER_FLOATS, *kept = kept_of(network, l);
    float square = network.epsilons[l], s = 0.0f, along = 0.0f;
    open(e, arriving(ROWS, CLUSTER));
    if (owns()) {
#pragma unroll
        for (int k = 0; k < 3; k++) {
            square += left.v[k] * left.v[k];
            s += left.v[k] * left.y[k];
            along += own.gm[k] * left.y[k];
        }
        leave(o, ROWS, 0, 0, own.gq);
        leave(o, ROWS, 1, 0, along);
        leave(o, ROWS, 2, 0, own.gq * s);
    }
    __syncthreads();
    spread_layer<SECOND_TILES, ROWS, CLUSTER>(e, VECTORS, w + SECOND_AT);
    if (owns()) wait(e);
    e.count++;
    open(e, arriving(ROWS, CLUSTER));
    if (owns()) give(e, o, OTHER, ROWS, 0, left.slope * spread_sum<ROWS>(o, VECTORS, 0));
    wait(e);
    e.count++;
    gather_layer<FIRST_TILES, ROWS, CLUSTER>(OTHER, w + FIRST_AT);
    open(e, arriving(VECTOR_ROWS, CLUSTER));
    __syncthreads();
    if (owns()) {
        float shared_part = own.gq * left.a3, gn = gathered_sum<FIRST_TILES, ROWS, CLUSTER>(o, 0, 1) * reciprocal_root(square);
        own.gq += gathered_sum<FIRST_TILES, ROWS, CLUSTER>(o, 0, 0);
#pragma unroll
        for (int k = 0; k < 3; k++) {
            leave(o, VECTOR_ROWS, 0, k * ROWS, shared_part * left.y[k] + gn * left.v[k]);
            leave(o, VECTOR_ROWS, 1, k * ROWS, shared_part * left.v[k] + own.gm[k] * left.a2);
        }
    }
    __syncthreads();
    const float4* from = filters_of(network, l);
    bring_filters(PARTS_AT, from);
    Filters slopes = ask_for_filters(from + FILTER_FOURS);
    spread_layer<MIX_TILES, VECTOR_ROWS, CLUSTER>(e, VECTORS, w);
    if (owns()) {
        float x[3], mu[3];
#pragma unroll
        for (int k = 0; k < 3; k++) {
            x[k] = kept[(KEPT_X + k) * FEW_THREADS];
            mu[k] = kept[(KEPT_MU + k) * FEW_THREADS];
        }
        set_sender(o, x, mu);
        wait(e);
        float* gradients = room(GRADIENTS) + o.atom * GRADIENT_STRIDE + o.channel;
#pragma unroll
        for (int k = 0; k < 3; k++) own.gm[k] += spread_sum<VECTOR_ROWS>(o, VECTORS, k * ROWS);
        if (o.mine()) {
            gradients[0] = own.gq;
            for (int k = 0; k < 3; k++) gradients[(1 + k) * OWN] = own.gm[k];
        }
    }
    e.count++;
    own.exchanges = e.count;
    __syncthreads();
    // Nobody writes to where vectors arrive before this block has given its part of the next exchange.
    put_filters(VECTORS, slopes);
    all_arrived();
    __syncthreads();
    message_gradients(l == 0, !last);
    if (l > 0) open(e, arriving(ROWS, CLUSTER));
    __syncthreads();
    if (l == 0) return;
    w -= LAYER_FLOATS;
    if (owns()) {
        const float* sums = room(GATHERED) + o.atom * 6 * OWN + o.channel;
#pragma unroll
        for (int k = 0; k < 3; k++) {
            leave(o, ROWS, k, 0, sums[k * OWN]);
            own.gm[k] += sums[(3 + k) * OWN];
        }
    }
    __syncthreads();
    spread_layer<CONTEXT_SECOND_TILES, ROWS, CLUSTER>(e, OTHER, w + CONTEXT_SECOND_AT);
    float context = 0.0f;
    if (owns()) {
        context = kept_of(network, l - 1)[KEPT_CONTEXT * FEW_THREADS];
        left = take_left(network, l - 1);
        wait(e);
    }
    e.count++;
    open(e, arriving(ROWS, CLUSTER));
    if (owns()) give(e, o, THIRD, ROWS, 0, context * spread_sum<ROWS>(o, OTHER, 0));
    wait(e);
    e.count++;
    own.exchanges = e.count;
    gather_layer<CONTEXT_FIRST_TILES, ROWS, CLUSTER>(THIRD, w + CONTEXT_FIRST_AT);
    __syncthreads();
    if (owns()) own.gq += gathered_sum<CONTEXT_FIRST_TILES, ROWS, CLUSTER>(o, 0, 0);
}

// Two float64 numbers as they travel.
__device__ inline float4 two_wide(double a, double b)
{
    union {
        double wide[2];
        float4 all;
    } both = {{a, b}};
    return both.all;
}

// What a pair of atoms does to the first of them, from the sum of both gradients by the distance and the difference of those by
// the direction, which leads to the other atom: see `push_of`.
__device__ inline Push push_of_pair(const Parameters& own, int atom, int other, float4 pair, float4 gradient)
{
    double d = pair.w, slope = 1.0;
    Push push = {0.0, 0.0, 0.0, 0.0};
#if REPULSION
    if (d < own.repelled) {
        Repulsion both = repel_at(own, atom, other, pair_vector(own, atom, other, 0, 0, 0));
        push = {both.gradient.x, both.gradient.y, both.gradient.z, 0.5 * both.energy};
        if (both.slope < 1.0) {
            d = both.d;
            slope = both.slope;
        }
    }
#endif
    double sign = atom < other ? 1.0 : -1.0, ux = sign * pair.x, uy = sign * pair.y, uz = sign * pair.z;
    double wide = d + own.epsilon, part = 1.0 / wide, gx = gradient.y * part, gy = gradient.z * part, gz = gradient.w * part;
    double along = (gradient.x * slope - (gx * ux + gy * uy + gz * uz)) * (wide / d), unit = own.energy_unit;
    return add({(ux * along + gx) * unit, (uy * along + gy) * unit, (uz * along + gz) * unit, 0.0}, push);
}

// Leaves an atom's pairs and their gradients where other kernels look for them: of each pair half of what both its directions
// have, so that a sum over all pairs is the same. `gradient`: of the pair with the atom that this lane's number is. One warp.
__device__ inline void bring_pairs_back(const Parameters& p, const Parameters& own, int atom, float4 gradient)
{
    unsigned begin = p.rows[atom], end = p.rows[atom + 1];
    int count = find_row(own, own.control, own.control, &own.control->close, atom, begin, end, p.pairs + begin);
    unsigned e = begin + warp_lane();
    int neighbor = e < end ? neighbor_of(p.entries[e]) : 0;
    float d = __shfl_sync(FULL, gradient.x, neighbor, 32), x = __shfl_sync(FULL, gradient.y, neighbor, 32);
    float y = __shfl_sync(FULL, gradient.z, neighbor, 32), z = __shfl_sync(FULL, gradient.w, neighbor, 32);
    if (e < end) p.gradients[e] = make_float4(0.5f * d, -0.5f * x, -0.5f * y, -0.5f * z);
    if (warp_lane() == 0) p.inside[atom] = count;
}

// Atoms whose forces a block adds up, at most.
#define HELD ((ATOMS + CLUSTER - 1) / CLUSTER)
static_assert(ATOMS <= 32, "a lane has an atom's pair with each other");

// From gradients of pairs to forces on all atoms, in every block: blocks take turns with atoms, and give all what these have.
__device__ inline void collect_forces(const Parameters& p, const Parameters& own, const OneNetwork& network, Passing& passing,
                                      bool bring_back)
{
    Exchange e = make_exchange(passing.exchanges);
    int rank = here(cluster_rank()), mine = (ATOMS - rank + CLUSTER - 1) / CLUSTER, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    open(e, 4 * CLUSTER * mine * ATOMS);
#pragma unroll 1
    for (int k = threadIdx.x; k < ATOMS * ATOMS; k += FEW_THREADS) {
        int j = k / ATOMS, i = k % ATOMS;
        const float4* sums = (const float4*)room(SUMS);
        float4 a = sums[k], b = sums[i * ATOMS + j], both = make_float4(a.x + b.x, b.y - a.y, b.z - a.z, b.w - a.w);
        if (i == j) both = make_float4(room(ENERGIES)[j], 0.0f, 0.0f, 0.0f);
        send_into(window_of(j % CLUSTER), (OTHER + ((rank * HELD + j / CLUSTER) * ATOMS + i) * 4) * 4, both, (e.count & 1) * 8);
    }
    if (warp < mine) wait(e);
    e.count++;
    open(e, ATOMS * FORCE_FLOATS);
    if (warp < mine) {
        int atom = rank + warp * CLUSTER;
        float4 sums[4] = {zero4(), zero4(), zero4(), zero4()};
        if (lane < ATOMS) {
#pragma unroll
            for (int k = 0; k < CLUSTER; k++)
                sums[k % 4] = add(sums[k % 4], ((const float4*)room(OTHER))[(k * HELD + warp) * ATOMS + lane]);
        }
        float4 gradient = add(add(sums[0], sums[1]), add(sums[2], sums[3]));
        float energy = __shfl_sync(FULL, gradient.x, atom, 32) + network.last_bias;
        Push push = {0.0, 0.0, 0.0, 0.0};
        if (lane < ATOMS && lane != atom)
            push = push_of_pair(own, atom, lane, ((const float4*)room(PAIRS))[pair_place(atom, lane)], gradient);
        double3 f = make_double3(warp_sum(push.x), warp_sum(push.y), warp_sum(push.z));
        double repulsion = REPULSION ? warp_sum(push.energy) / p.energy_unit : 0.0;
        if (lane < CLUSTER) {
            Window to = window_of(lane);
            int at = (FORCES + atom * FORCE_FLOATS) * 4, barrier = (e.count & 1) * 8;
            send_into(to, at, two_wide(f.x, f.y), barrier);
            send_into(to, at + 16, two_wide(f.z, repulsion), barrier);
            send_into(to, at + 32, make_float4(energy, 0.0f, 0.0f, 0.0f), barrier);
        }
        if (bring_back) bring_pairs_back(p, own, atom, gradient);
    }
    wait(e);
    e.count++;
    passing.exchanges = e.count;
    if (threadIdx.x < ATOMS) {
        const float* record = room(FORCES) + threadIdx.x * FORCE_FLOATS;
        for (int k = 0; k < 3; k++) own.forces[3 * threadIdx.x + k] = ((const double*)record)[k];
#if REPULSION
        own.repulsion[threadIdx.x] = ((const double*)record)[3];
#endif
        own.energies[threadIdx.x] = record[8];
    }
}

// Pairs, network, forces, after so many exchanges; returns how many there were then. Thread n has what `own` says of atom n; the
// others must wait.
__device__ inline int evaluate(const Parameters& p, const Parameters& own, const OneNetwork& network, int exchanges, bool bring_back)
{
    const Owner o = make_owner();
    Passing passing;
    passing.exchanges = exchanges;
    float x[3], none[3] = {0.0f, 0.0f, 0.0f};
    if (owns()) {
        const float* kept = kept_of(network, 0);
        for (int k = 0; k < 3; k++) x[k] = kept[(KEPT_X + k) * FEW_THREADS];
        passing.q = kept[KEPT_MU * FEW_THREADS];
    }
    passing.m[0] = passing.m[1] = passing.m[2] = 0.0f;
    find_pairs(own);
    if (owns()) set_sender(o, x, none);
    __syncthreads();
    make_filters<FEW_THREADS>(p, network, 0, threadIdx.x);
    __syncthreads();
    bring_filters(PARTS_AT, filters_of(network, 0));
    all_arrived();
    __syncthreads();
#pragma unroll 1
    for (int l = 0; l < LAYERS; l++) forward(p, network, l, passing);
    Left left = take_left(network, LAYERS - 1);
    read_out(passing);
#pragma unroll 1
    for (int l = LAYERS - 1; l >= 0; l--) backward(network, l, left, passing);
    collect_forces(p, own, network, passing, bring_back);
    return passing.exchanges;
}

// Weights, and the block's own copy of the system: forces, energies and who was too close beside what other kernels of few atoms
// have. The block must wait before it uses them.
__device__ inline const Parameters& prepare(const Parameters& p, const OneNetwork& network)
{
    const float4* from = (const float4*)(network.weights + here(cluster_rank()) * WEIGHT_FLOATS);
#pragma unroll 4
    for (int k = threadIdx.x; k < WEIGHT_FLOATS / 4; k += FEW_THREADS) ((float4*)room(WEIGHTS))[k] = from[k];
    int elements = p.elements * p.elements;
    Contact* contacts = (Contact*)room(REST);
    double* forces = (double*)(contacts + elements);
    float* energies = (float*)(forces + 4 * ATOMS);
#pragma unroll 1
    for (int k = threadIdx.x; k < elements; k += FEW_THREADS) contacts[k] = p.contacts[k];
    Parameters& own = own_copy(p, (char*)(energies + 2 * ROWS));
    if (threadIdx.x == 0) {
        own.contacts = contacts;
        own.forces = forces;
        own.repulsion = forces + 3 * ATOMS;
        own.energies = energies;
    }
    // What elements decide of the first layer.
    const Owner o = make_owner();
    if (owns() && o.mine()) {
        float* kept = kept_of(network, 0);
        int kind = kind_of(p, o.atom), channel = here(cluster_rank()) * OWN + o.channel;
        for (int k = 0; k < 3; k++) kept[(KEPT_X + k) * FEW_THREADS] = network.sent[(kind * 3 + k) * FEATURES + channel];
        kept[KEPT_MU * FEW_THREADS] = network.embedding[kind * FEATURES + channel];
    }
    return own;
}

// To where the host and other kernels look for it. One block.
__device__ inline void bring_back(const Parameters& p, const Parameters& own)
{
#pragma unroll 1
    for (int k = threadIdx.x; k < 3 * p.atoms; k += FEW_THREADS) {
        p.positions[k] = own.positions[k];
        p.velocities[k] = own.velocities[k];
        p.forces[k] = own.forces[k];
    }
    for (int atom = threadIdx.x; atom < p.atoms; atom += FEW_THREADS) {
        p.energies[atom] = own.energies[atom];
#if REPULSION
        p.repulsion[atom] = own.repulsion[atom];
#endif
    }
#if WATCH
    for (int k = threadIdx.x; k < p.elements * p.elements; k += FEW_THREADS) p.contacts[k] = own.contacts[k];
#endif
    if (threadIdx.x < 5) p.partials[threadIdx.x] = own.partials[threadIdx.x];
    if (threadIdx.x == 0) *p.control = *own.control;
}

extern "C" __global__ void CLUSTERED __launch_bounds__(FEW_THREADS, 1)
one_steps(const __grid_constant__ Parameters p, const __grid_constant__ OneNetwork network, int what, unsigned long long again)
{
    open_exchange(make_exchange(0).barriers);
    const Parameters& own = prepare(p, network);
    // All blocks have their barriers before anybody writes to them, and have read the system before it is brought back.
    cluster_wait();
    __syncthreads();
    bool more = false, begun = own.control->status == 0, done = begun;
    int exchanges = 0;
    while (begun) {
        exchanges = evaluate(p, own, network, exchanges, what == ONLY_FORCES);
        if (what == ONLY_FORCES) break;
        // Nobody changes the status meanwhile but who has an atom: each its own.
        int atom = threadIdx.x;
        if (atom < ATOMS && own.control->status == 0)
            kick(own, atom, vector_of(own.velocities, atom), own.half_kick[atom], vector_of(own.forces, atom));
        __syncthreads();
        more = end_whole(own);
        __syncthreads();
        if (more && what == ALL_STEPS) begin_whole(own);
        begun = more && what == ALL_STEPS && own.control->rebuild == 0;
    }
    if (blockIdx.x != 0) return;
    __syncthreads();
    if (done) bring_back(p, own);
    if (threadIdx.x == 0 && !more) set_conditional(again, 0);
}
