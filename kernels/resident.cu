// Steps of few atoms by clusters that keep all weights in shared memory: one kernel takes one after the other for as long as the list
// holds.
//
// Each cluster has its own atoms. In it no block waits for more than the exchanges of dense layers, since each has its own channels
// of all its atoms. For messages a block wants those channels of the other clusters' atoms too, from the block of its rank there; then
// blocks take turns with the forces on the cluster's atoms, and tell all. Both ends of a step are every block's own work, to the same
// bits; the first one brings the atoms back in the end. Formulas as in ARCHITECTURE.md.
#include "resident_messages.cuh"
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
__device__ inline float* kept_of(const Resident& network, int l)
{
    return network.kept + (here(blockIdx.x) * LAYERS + l) * KEPT * FEW_THREADS + thread_here();
}

__device__ inline Left take_left(const Resident& network, int l)
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

// Leaves six numbers of an owner, x (3) and μ (3), for the block's messages: what its atom sends, or sent, into a layer.
__device__ inline void set_sender(float* to, const float* x, const float* mu)
{
#pragma unroll
    for (int k = 0; k < 3; k++) {
        to[k * OWN] = x[k];
        to[(3 + k) * OWN] = mu[k];
    }
}

// Layer l's messages and update, and what atoms send into the next layer. `tag`: of this evaluation's words.
__device__ inline void forward(const Resident& network, int l, unsigned tag, Passing& own)
{
    const Owner o = make_owner();
    Exchange e = make_exchange(own.exchanges);
    bool last = l + 1 == LAYERS;
    const float *w = room(WEIGHTS) + l * LAYER_FLOATS, *biases = room(WEIGHTS + BIASES_AT) + l * LAYER_BIASES + o.channel;
    float *kept = kept_of(network, l), *next = kept + KEPT * FEW_THREADS;

    Filters ahead = look_ahead(network, l);
    if (l > 0)
        hear(sent_words(network, l, false), tag, [](int atom, int which, int channel, const float4& word) {
            float* to = room(ALL) + atom * SENDER_STRIDE + which * 3 * OWN + channel;
            to[0] = word.x;
            to[OWN] = word.y;
            to[2 * OWN] = word.z;
        });
    __syncthreads();
    messages(network, l, ahead);
    open(e, arriving(VECTOR_ROWS, CLUSTER));
    __syncthreads();
    if (owns()) {
        float sums[4];
        gathered<4>(o, sums);
        own.q += sums[0];
#pragma unroll
        for (int k = 0; k < 3; k++) {
            own.m[k] += sums[1 + k];
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
    float x[3];
    if (owns()) {
#pragma unroll
        for (int n = 0; n < 3; n++) x[n] = biases[(5 + n) * OWN] + gathered_sum<CONTEXT_SECOND_TILES, ROWS, CLUSTER>(o, 0, n);
        tell(sent_words(network, l + 1, false), o, tag, x, own.m);
#pragma unroll
        for (int n = 0; n < 3; n++) {
            next[(KEPT_X + n) * FEW_THREADS] = x[n];
            next[(KEPT_MU + n) * FEW_THREADS] = own.m[n];
        }
    }
    // Sums lie where the numbers of all atoms come.
    __syncthreads();
    if (owns() && o.mine()) set_sender(room(ALL) + (own_atoms().first + o.atom) * SENDER_STRIDE + o.channel, x, own.m);
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
// then of that of the layer before. `tag`: of this evaluation's words.
__device__ inline void backward(const Resident& network, int l, unsigned tag, Left& left, Passing& own)
{
    const Owner o = make_owner();
    Exchange e = make_exchange(own.exchanges);
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
    spread_layer<MIX_TILES, VECTOR_ROWS, CLUSTER>(e, VECTORS, w);
    Ahead ahead = look_back(network, l);
    if (owns()) {
        float x[3], mu[3];
#pragma unroll
        for (int k = 0; k < 3; k++) {
            x[k] = kept[(KEPT_X + k) * FEW_THREADS];
            mu[k] = kept[(KEPT_MU + k) * FEW_THREADS];
        }
        if (o.mine()) set_sender(room(SENT) + o.atom * 6 * OWN + o.channel, x, mu);
        wait(e);
#pragma unroll
        for (int k = 0; k < 3; k++) own.gm[k] += spread_sum<VECTOR_ROWS>(o, VECTORS, k * ROWS);
        float rest[3] = {own.gm[2], 0.0f, 0.0f}, most[3] = {own.gq, own.gm[0], own.gm[1]};
        tell(sent_words(network, l, true), o, tag, most, rest);
        if (o.mine()) {
            float* gradients = room(ALL) + (own_atoms().first + o.atom) * GRADIENT_STRIDE + o.channel;
            gradients[0] = own.gq;
            for (int k = 0; k < 3; k++) gradients[(1 + k) * OWN] = own.gm[k];
        }
    }
    e.count++;
    own.exchanges = e.count;
    // Gradients of pairs arrive where vectors did, which everybody must have read.
    if (l == 0) cluster_arrive();
    hear(sent_words(network, l, true), tag, [](int atom, int which, int channel, const float4& word) {
        float* to = room(ALL) + atom * GRADIENT_STRIDE + channel;
        if (which) {
            to[3 * OWN] = word.x;
        } else {
            to[0] = word.x;
            to[OWN] = word.y;
            to[2 * OWN] = word.z;
        }
    });
    __syncthreads();
    if (l == 0) cluster_wait();
    message_gradients(network, l, ahead, e.count);
    if (l > 0) open(e, arriving(ROWS, CLUSTER));
    __syncthreads();
    if (l == 0) return;
    w -= LAYER_FLOATS;
    if (owns()) {
        float sums[6];
        gathered<6>(o, sums);
#pragma unroll
        for (int k = 0; k < 3; k++) {
            leave(o, ROWS, k, 0, sums[k]);
            own.gm[k] += sums[3 + k];
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

static_assert(CLUSTER * ATOMS * 4 <= 4 * SCALARS && GROUP <= CLUSTER, "each atom's pairs have room in a block of its own");

// What pair (own atom j <- other i) does to j, eV/Å; i is pushed the other way. From its gradients, of which those by û are for û from
// i to j; `r` leads from j to i. The formula is that of `pair_gradient`.
__device__ inline double3 push_of_pair(const Parameters& own, double3 r, double d, double slope, float4 gradient)
{
    double wide = d + own.epsilon, part = 1.0 / wide, ux = r.x * part, uy = r.y * part, uz = r.z * part, unit = own.energy_unit;
    double gx = -gradient.y * part, gy = -gradient.z * part, gz = -gradient.w * part;
    double along = (gradient.x * slope - (gx * ux + gy * uy + gz * uz)) * (wide / d);
    return make_double3((ux * along + gx) * unit, (uy * along + gy) * unit, (uz * along + gz) * unit);
}

// The gradient of a pair, over the cluster's blocks.
__device__ inline float4 pair_gradient_of(const float4* gradients, int k)
{
    float4 sum = zero4(), other = zero4();
    // Short code counts where one warp goes through it once: it comes from far away each time.
#pragma unroll 2
    for (int block = 0; block < CLUSTER; block += 2) {
        sum = add(sum, gradients[block * ATOMS + k]);
        other = add(other, gradients[(block + 1) * ATOMS + k]);
    }
    return add(sum, other);
}

// Leaves an atom's pairs and their gradients where other kernels look for them. One warp.
__device__ inline void bring_pairs_back(const Parameters& p, const Parameters& own, int atom, const float4* gradients)
{
    unsigned begin = p.rows[atom], end = p.rows[atom + 1];
    int count = find_row(own, own.control, own.control, &own.control->close, atom, begin, end, p.pairs + begin);
    __syncwarp();
    for (int k = warp_lane(); k < count; k += 32) p.gradients[p.pairs[begin + k].entry] = pair_gradient_of(gradients, k);
    if (warp_lane() == 0) p.inside[atom] = count;
}

// The words of an atom: halves of float64 numbers, and what else there is to tell. One warp.
__device__ inline void tell_force(float4* to, unsigned tag, double3 f, float energy, double repulsion, const Control* control)
{
    union {
        double wide[4];
        float halves[8];
    } all = {{f.x, f.y, f.z, repulsion}};
    if (warp_lane() != 0) return;
    post(to, all.halves[0], all.halves[1], all.halves[2], tag);
    post(to + 1, all.halves[3], all.halves[4], all.halves[5], tag);
    post(to + 2, all.halves[6], all.halves[7], energy, tag);
    // Of all that the block knows.
    int overlap = control->status == STATUS_OVERLAP ? control->atom + 1 : 0;
    post(to + 3, __int_as_float(overlap), __int_as_float(control->close == 1), 0.0f, tag);
}

#if WATCH
// Remembers which atoms are too close to this one. One warp.
__device__ inline void note_contacts(const Parameters& own, int atom)
{
    Pair pair;
    for (int other = warp_lane(); other < ATOMS; other += 32)
        if (other != atom)
            make_pair(own, own.control, own.control, &own.control->close, atom, other, pair_vector(own, atom, other, 0, 0, 0), pair);
}
#endif

#if LANGEVIN
// Random numbers of the step after this one for all atoms, [ATOMS][3].
__device__ inline double* noise_of() { return (double*)room(NOISE); }
#else
__device__ inline double* noise_of() { return nullptr; }
#endif

// Warps of which each lane has a pair of an atom, or the atom's energy.
#define PUSHERS ((ATOMS + 31) / 32)
static_assert(PUSHERS * 5 * 2 <= 6 * OWN * PARTS_OF_ATOMS && 32 * PUSHERS + ATOMS <= FEW_THREADS, "they leave sums where parts were");

// Forces on all atoms, in every block: each of a cluster's blocks adds up those of one of its atoms, from all blocks' gradients of its
// pairs, which have been sent in the exchange that goes on, and tells all.
// Not inlined: its float64 numbers would take registers from all layers.
__device__ __noinline__ void collect_forces(const Parameters& p, const Parameters& own, const Resident& network, unsigned tag,
                                            int exchanges, bool bring_back)
{
    Exchange e = make_exchange(exchanges);
    int rank = here(cluster_rank()), lane = threadIdx.x % 32, count = rank < own_atoms().count ? count_of(rank) + 1 : 0;
    open(e, 4 * CLUSTER * count);
    if (threadIdx.x < own_atoms().count)
        send_into(window_of(threadIdx.x), (VECTORS + (rank * ATOMS + count_of(threadIdx.x)) * 4) * 4,
                  make_float4(room(ENERGIES)[threadIdx.x], 0.0f, 0.0f, 0.0f), (e.count & 1) * 8);
    float4 *pairs = network.words + PAIR_WORDS, *atoms = network.words + ATOM_WORDS;
    double* pushed = (double*)room(GATHERED); // [PUSHERS][5]
    double sums[4] = {0.0, 0.0, 0.0, 0.0}; // the force, and half of the repulsion's energy
    float energy = 0.0f;
    int atom = own_atoms().first + rank, k = threadIdx.x;
    if (k < 32 * PUSHERS && count > 0) {
        wait(e);
        float4 gradient = k < count ? pair_gradient_of((const float4*)room(VECTORS), k) : zero4();
        // Behind the pairs is the atom's energy.
        if (k == count - 1) energy = gradient.x;
        if (k < count - 1) {
            int other = other_atom(*pair_at(network, first_of(rank) + k));
            double3 r = pair_vector(own, atom, other, 0, 0, 0);
            double d = sqrt(norm2(r.x, r.y, r.z)), slope = 1.0;
#if REPULSION
            if (d < own.repelled) {
                Repulsion both = repel_at(own, atom, other, r);
                sums[0] += both.gradient.x;
                sums[1] += both.gradient.y;
                sums[2] += both.gradient.z;
                sums[3] += 0.5 * both.energy;
                slope = both.slope;
            }
#endif
            double3 f = push_of_pair(own, r, d, slope, gradient);
            float4 told = {(float)f.x, (float)f.y, (float)f.z, 0.0f}, heard;
            post(pairs + atom * ATOMS + other, told.x, told.y, told.z, tag);
            do heard = look(pairs + other * ATOMS + atom, tag);
            while (!has_tag(heard, tag));
            // Rounded differences, which are opposite to the last bit where they are taken the other way.
            sums[0] += told.x - heard.x;
            sums[1] += told.y - heard.y;
            sums[2] += told.z - heard.z;
        }
        __syncwarp();
#pragma unroll 1
        for (int offset = 16; offset > 0; offset >>= 1) {
#pragma unroll
            for (int c = 0; c < 3 + REPULSION; c++) sums[c] += __shfl_xor_sync(FULL, sums[c], offset);
            energy += __shfl_xor_sync(FULL, energy, offset);
        }
        if (PUSHERS > 1 && lane == 0) {
            double* to = pushed + k / 32 * 5;
            for (int c = 0; c < 4; c++) to[c] = sums[c];
            to[4] = energy;
        }
    }
#if LANGEVIN
    // While those warps wait for others: the step that goes on is control->step + 1.
    else if (int other = threadIdx.x - (FEW_THREADS - ATOMS); other >= 0) {
        double3 xi = normal3(own, own.control->step + 2, other);
        noise_of()[3 * other] = xi.x;
        noise_of()[3 * other + 1] = xi.y;
        noise_of()[3 * other + 2] = xi.z;
    }
#endif
    if (PUSHERS > 1) __syncthreads();
    if (threadIdx.x < 32 && count > 0) {
        for (int warp = 1; warp < PUSHERS; warp++) {
            for (int c = 0; c < 4; c++) sums[c] += pushed[warp * 5 + c];
            energy += (float)pushed[warp * 5 + 4];
        }
        tell_force(atoms + atom * FORCE_WORDS, tag, make_double3(sums[0], sums[1], sums[2]), energy + network.last_bias,
                   sums[3] / p.energy_unit, own.control);
        if (bring_back) bring_pairs_back(p, own, atom, (const float4*)room(VECTORS));
    }
    // What this block has found by itself is told and heard like everything else.
    __syncthreads();
    static_assert(ATOMS * FORCE_WORDS <= FEW_THREADS, "a thread has one word");
    int which = threadIdx.x % FORCE_WORDS;
    atom = threadIdx.x / FORCE_WORDS;
    if (atom < ATOMS) {
        float4 word;
        do word = look(atoms + threadIdx.x, tag);
        while (!has_tag(word, tag));
        float* force = (float*)own.forces + atom * 6 + which * 3;
        if (which < 2) {
            force[0] = word.x;
            force[1] = word.y;
            force[2] = word.z;
        } else if (which == 2) {
#if REPULSION
            ((float*)own.repulsion)[2 * atom] = word.x;
            ((float*)own.repulsion)[2 * atom + 1] = word.y;
#endif
            own.energies[atom] = word.z;
        } else {
            int overlap = __float_as_int(word.x);
            if (overlap > 0) fail(own.control, STATUS_OVERLAP, overlap - 1);
            if (__float_as_int(word.y)) own.control->close = 1;
        }
    }
    __syncthreads();
#if WATCH
    // The first block says who is too close, of all.
    if (blockIdx.x == 0 && own.control->close == 1)
        for (int atom = threadIdx.x / 32; atom < ATOMS; atom += WARPS) note_contacts(own, atom);
    __syncthreads();
#endif
}

// Pairs, network, forces, after so many exchanges; returns how many there were then. Thread n has what `own` says of atom n; the
// others must wait.
__device__ inline int evaluate(const Parameters& p, const Parameters& own, const Resident& network, unsigned tag, int exchanges,
                               bool bring_back)
{
    Passing passing;
    passing.exchanges = exchanges;
    passing.q = owns() ? kept_of(network, 0)[KEPT_MU * FEW_THREADS] : 0.0f;
    passing.m[0] = passing.m[1] = passing.m[2] = 0.0f;
    // What atoms send into the first layer, their elements decide.
#pragma unroll 1
    for (int k = threadIdx.x; k < ATOMS * 6; k += FEW_THREADS) {
        int atom = k / 6, third = k % 6 / 2, half = k % 2;
        const float* sent = network.sent + (kind_of(p, atom) * 3 + third) * FEATURES + here(cluster_rank()) * OWN + half * 4;
        store4(room(ALL) + atom * SENDER_STRIDE + third * OWN + half * 4, load4(sent));
    }
    find_pairs(own, network);
    __syncthreads();
    share_turns();
#pragma unroll 1
    for (int l = 0; l < LAYERS; l++) forward(network, l, tag, passing);
    Left left = take_left(network, LAYERS - 1);
    read_out(passing);
#pragma unroll 1
    for (int l = LAYERS - 1; l >= 0; l--) backward(network, l, tag, left, passing);
    collect_forces(p, own, network, tag, passing.exchanges, bring_back);
    return passing.exchanges + 1;
}

// Weights, and the block's own copy of the system: forces, energies and who was too close beside what other kernels of few atoms
// have. The block must wait before it uses them.
__device__ inline const Parameters& prepare(const Parameters& p, const Resident& network)
{
    const float4* from = (const float4*)(network.weights + here(cluster_rank()) * WEIGHT_FLOATS);
#pragma unroll 4
    for (int k = threadIdx.x; k < WEIGHT_FLOATS / 4; k += FEW_THREADS) ((float4*)room(WEIGHTS))[k] = from[k];
    for (int l = 0; l < LAYERS; l++) {
        const uint4* packed = network.filters[l].weights + here(cluster_rank()) * 3 * 48;
        for (int k = threadIdx.x; k < FILTER_FLOATS / 4; k += FEW_THREADS) {
            const float* at = k < 3 * 48 ? (const float*)(packed + k) : (const float*)network.filters[l].functions + 4 * (k - 3 * 48);
            store4(room(FILTERS + l * FILTER_FLOATS) + 4 * k, load4(at));
        }
    }
    int elements = p.elements * p.elements;
    Contact* contacts = (Contact*)room(REST);
    double* forces = (double*)(contacts + elements);
    float* energies = (float*)(forces + 4 * ATOMS);
#pragma unroll 1
    for (int k = threadIdx.x; k < elements; k += FEW_THREADS) contacts[k] = p.contacts[k];
    Parameters& own = own_copy(p, (char*)(energies + (ATOMS + 1) / 2 * 2));
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
        int kind = kind_of(p, own_atoms().first + o.atom), channel = here(cluster_rank()) * OWN + o.channel;
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
resident_steps(const __grid_constant__ Parameters p, const __grid_constant__ Resident network, int what, unsigned long long again)
{
    open_exchange(make_exchange(0).barriers);
    const Parameters& own = prepare(p, network);
    // All blocks have their barriers before anybody writes to them, and have read the system before it is brought back.
    cluster_wait();
    __syncthreads();
    bool more = false, begun = own.control->status == 0, done = begun;
    int exchanges = 0;
    // Nobody writes it before all have come to the end of an evaluation.
    unsigned tag = *network.evaluations;
    while (begun) {
        exchanges = evaluate(p, own, network, ++tag, exchanges, what == ONLY_FORCES);
        if (what == ONLY_FORCES) break;
        int atom = threadIdx.x;
        bool good = own.control->status == 0;
        __syncthreads();
        if (atom < ATOMS && good)
            kick(own, atom, vector_of(own.velocities, atom), own.half_kick[atom], vector_of(own.forces, atom));
        __syncthreads();
        more = end_whole(own);
        __syncthreads();
        if (more && what == ALL_STEPS) begin_whole(own, LANGEVIN ? noise_of() : nullptr);
        begun = more && what == ALL_STEPS && own.control->rebuild == 0;
    }
    if (blockIdx.x != 0) return;
    __syncthreads();
    if (done) bring_back(p, own);
    if (threadIdx.x == 0) *network.evaluations = tag;
    if (threadIdx.x == 0 && !more) set_conditional(again, 0);
}
