// Messages and their adjoint in a block's own channels, at the cluster's atoms: warps share an atom's pairs, sixteen at a time; four
// lanes have two channels each of pairs g and g + 8, as a product on tensor cores leaves them.
//
// Filters come from the radial functions each time, see radial.cuh: a table of them would come from far away for every block.
#pragma once
#include "resident_words.cuh"
#include "radial.cuh"

// Pairs of the cluster's atoms, one atom's behind another's: where a pair has its direction and the number of its other atom, and its
// distance with f_c and the derivative of that.
__device__ inline float4* pair_at(const Resident& network, int pair)
{
    if (ROOMY || pair < PAIRS_INSIDE) return (float4*)room(PAIRS) + pair;
    return network.pairs + here(blockIdx.x) * ALL_PAIRS + pair;
}

__device__ inline float* distance_at(const Resident& network, int pair)
{
    if (ROOMY || pair < PAIRS_INSIDE) return room(DISTANCES) + 3 * pair;
    return network.distances + (here(blockIdx.x) * ALL_PAIRS + pair) * 3;
}

__device__ inline int other_atom(const float4& pair) { return __float_as_int(pair.w); }

// Pairs of each of the cluster's atoms, and the first of them; behind the last atom, where there is no further pair.
__device__ inline int count_of(int atom) { return ((const int*)room(COUNTS))[atom]; }
__device__ inline int first_of(int atom) { return ((const int*)room(FIRSTS))[atom]; }

// Finds them, a warp an atom, in the order of neighbours. `own` has the atoms where they are now. Every thread must call it; the block
// must wait before it uses them.
__device__ inline void find_pairs(const Parameters& own, const Resident& network)
{
    const Atoms atoms = own_atoms();
    int warp = thread_here() / 32, atom = atoms.first + warp, near = 0, count = 0;
    unsigned below = (1u << warp_lane()) - 1;
    // Numbers of those that may be inside first: what is left takes one turn, seldom two. A distance that is no number is inside.
    double reach2 = own.cutoff * own.cutoff * (1.0 + 1e-12);
    static_assert(ATOMS <= 128 && ATOMS <= 6 * OWN * (int)sizeof(float), "a warp has room for the numbers of all atoms");
    char* others = (char*)(room(GATHERED) + warp * 6 * OWN);
#pragma unroll 1
    for (int first = 0; first < ATOMS && warp < atoms.count; first += 32) {
        int other = min(first + warp_lane(), ATOMS - 1);
        double3 r = pair_vector(own, atom, other, 0, 0, 0);
        bool in = first + warp_lane() < ATOMS && other != atom && !(norm2(r.x, r.y, r.z) > reach2);
        unsigned all = __ballot_sync(FULL, in);
        if (in) others[near + __popc(all & below)] = (char)other;
        near += __popc(all);
    }
    // Nobody has sent anything yet.
    int* nears = (int*)room(SENT);
    if (warp_lane() == 0 && warp < GROUP) nears[warp] = near;
    __syncthreads();
    auto first_pair = [nears](int atom) {
        int pairs = 0;
        for (int k = 0; k < atom; k++) pairs += nears[k];
        return pairs;
    };
    if (threadIdx.x <= GROUP) ((int*)room(FIRSTS))[threadIdx.x] = first_pair(threadIdx.x);
    if (warp >= atoms.count) return;
    int begin = first_pair(warp);
#pragma unroll 1
    for (int first = 0; first < near; first += 32) {
        int k = first + warp_lane();
        Pair pair;
        bool in = false;
        if (k < near) {
            double3 r = pair_vector(own, atom, others[k], 0, 0, 0);
            in = make_pair(own, own.control, own.control, &own.control->close, atom, others[k], r, pair);
        }
        unsigned all = __ballot_sync(FULL, in);
        if (in) {
            int to = begin + count + __popc(all & below);
            *pair_at(network, to) = make_float4(pair.ux, pair.uy, pair.uz, __int_as_float(pair.neighbor));
            float* at = distance_at(network, to);
            at[0] = pair.distance;
            at[1] = pair.inside;
            at[2] = pair.slope;
        }
        count += __popc(all);
    }
    if (warp_lane() == 0) ((int*)room(COUNTS))[warp] = count;
}

__device__ inline float2 two(const float* at) { return *(const float2*)at; }

// The warp's number for messages: those that own channels come last.
__device__ inline int message_warp() { return WARPS - 1 - thread_here() / 32; }

// Shares out the turns of all the cluster's atoms, in their order, as evenly as there are warps, where turns have no warps of their own.
// The block must have waited for the pairs; others than the own warp must wait before they use what is left.
__device__ inline void share_turns()
{
    if (WARP_A_TURN) return;
    int warp = message_warp(), turns[GROUP], all = 0;
#pragma unroll
    for (int k = 0; k < GROUP; k++) {
        turns[k] = k < own_atoms().count ? (count_of(k) + 15) / 16 : 0;
        all += turns[k];
    }
    int each = max((all + WARPS - 1) / WARPS, 1), first = warp * each, atom = 0, turn = 0, before = 0, begin = 0, end = 0;
#pragma unroll
    for (int k = 0; k < GROUP; k++) {
        int after = before + turns[k];
        if (before <= first && first < after) {
            atom = k;
            turn = first - before;
        }
        if (k == warp_lane()) {
            begin = before;
            end = after;
        }
        before = after;
    }
    if (warp_lane() == 0) ((int*)room(SHARES))[warp] = atom | turn << 8 | max(min(each, all - first), 0) << 16;
    // Which places an atom's parts have.
    if (warp == 0 && warp_lane() < GROUP) {
        int from = begin / each, parts = end > begin ? (end - 1) / each + 1 - from : 0;
        ((int*)room(SPANS))[warp_lane()] = (from + warp_lane()) | parts << 8;
    }
    __syncwarp();
}

// What a warp's lane is: of the cluster's atom `atom`, two channels of pair `begin` + g and of the one eight further, where the atom's
// pairs end before `end`; so in the first of the warp's `turns`.
struct Lane {
    int atom, channel, begin, end, turns;
    // Both pairs of a turn.
    __device__ int pair(int n) const { return begin + 8 * n + warp_lane() / 4; }
    __device__ void look_at_atom(int turn)
    {
        begin = first_of(atom) + 16 * turn;
        end = first_of(atom) + count_of(atom);
    }
    // Whether this turn is the last one of the atom, or of the warp.
    __device__ bool ends() const { return WARP_A_TURN || turns == 1 || begin + 16 >= end; }
    __device__ void next()
    {
        begin += 16;
        if (--turns == 0 || begin < end) return;
        do atom++;
        while (count_of(atom) == 0);
        look_at_atom(0);
    }
};

// The place of a warp's part, see PARTS_OF_ATOMS.
__device__ inline int part_of(const Lane& t)
{
    return WARP_A_TURN ? message_warp() : message_warp() + t.atom;
}

__device__ inline Lane make_lane()
{
    int warp = message_warp(), channel = thread_here() % 4 * 2;
    if (WARP_A_TURN) {
        Lane t = {warp / TURNS, channel, 0, 0, 0};
        if (t.atom >= own_atoms().count) return t;
        t.look_at_atom(warp % TURNS);
        t.turns = t.begin < t.end;
        return t;
    }
    int share = ((const int*)room(SHARES))[warp];
    Lane t = {share & 255, channel, 0, 0, share >> 16};
    if (t.turns > 0) t.look_at_atom(share >> 8 & 255);
    return t;
}

// The first COUNT numbers of an owner's atom and channel that messages or their adjoint have left.
template <int COUNT> __device__ inline void gathered(const Owner& o, float* sums)
{
    int atom = o.mine() ? o.atom : 0, span = WARP_A_TURN ? 0 : ((const int*)room(SPANS))[atom];
    int from = WARP_A_TURN ? atom * TURNS : span & 255, parts = WARP_A_TURN ? (count_of(atom) + 15) / 16 : span >> 8;
    const float* at = room(GATHERED) + from * 6 * OWN + o.channel;
#pragma unroll
    for (int k = 0; k < COUNT; k++) sums[k] = 0.0f;
#pragma unroll 1
    for (int part = 0; part < parts; part++, at += 6 * OWN) {
#pragma unroll
        for (int k = 0; k < COUNT; k++) sums[k] += at[k * OWN];
    }
}

// Adds up COUNT numbers over the eight groups of four lanes: a lane is left with the sum of that which its group's place names.
template <int COUNT> __device__ inline float sum_groups(float* v)
{
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = COUNT / 2, offset = 16; offset >= 4; offset >>= 1) {
        if (half >= 1) {
            bool upper = lane & offset;
#pragma unroll
            for (int k = 0; k < half; k++) {
                float give = upper ? v[k] : v[k + half];
                v[k] = (upper ? v[k + half] : v[k]) + __shfl_xor_sync(FULL, give, offset);
            }
            half /= 2;
        } else {
            v[0] += __shfl_xor_sync(FULL, v[0], offset);
        }
    }
    return v[0];
}

// Filters of a lane's two pairs, or their slopes by the distance, in its two channels.
struct Filters {
    float2 q[2], radial[2], mu[2];
};

__device__ inline void take_product(float4 product, float unit, float2* to)
{
    to[0] = {product.x * unit, product.y * unit};
    to[1] = {product.z * unit, product.w * unit};
}

// Makes them for layer l, which has no vectors yet if it is the first, and slopes where they are asked for; zeros in place of a pair. A
// warp's lanes must all call it.
template <bool SLOPE>
__device__ inline void make_filters(const Resident& network, const Lane& t, int l, Filters& filters, Filters& slopes)
{
    const float4* memory = (const float4*)room(FILTERS + l * FILTER_FLOATS);
    const Radial radial = {(const uint4*)memory, (const float2*)(memory + 3 * 48)};
    Factor values[2], derivatives[2];
#pragma unroll
    for (int n = 0; n < 2; n++) {
        int k = t.pair(n);
        Pair pair = {};
        if (k < t.end) {
            const float* at = distance_at(network, k);
            pair.distance = at[0];
            pair.inside = at[1];
            pair.slope = at[2];
        }
        functions_of<SLOPE>(radial, pair, values[n], derivatives[n]);
    }
    float unit = network.filters[l].unit;
#pragma unroll
    for (int third = 0; third < 3; third++) {
        if (third == 2 && l == 0) break;
        const Right right = right_factor(radial.weights + third * 48);
        take_product(product(values[0], values[1], right), unit, third == 0 ? filters.q : third == 1 ? filters.radial : filters.mu);
        if (SLOPE)
            take_product(product(derivatives[0], derivatives[1], right), unit,
                         third == 0 ? slopes.q : third == 1 ? slopes.radial : slopes.mu);
    }
}

// Those of a warp's first turn, before other clusters' numbers have come.
__device__ inline Filters look_ahead(const Resident& network, int l)
{
    const Lane t = make_lane();
    Filters filters, none;
    if (t.turns > 0) make_filters<false>(network, t, l, filters, none);
    return filters;
}

// Messages to the cluster's atoms in layer l, from what all send: gathered[part][4][OWN].
__device__ inline void messages(const Resident& network, int l, Filters& w)
{
    float sums[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    bool ready = true;
#pragma unroll 1
    for (Lane t = make_lane(); t.turns > 0; t.next()) {
        Filters none;
        if (!ready) make_filters<false>(network, t, l, w, none);
        ready = false;
#pragma unroll
        for (int n = 0; n < 2; n++) {
            int pair = t.pair(n);
            if (pair >= t.end) continue;
            float4 direction = *pair_at(network, pair);
            const float* x = room(ALL + t.channel) + other_atom(direction) * SENDER_STRIDE;
            float2 x0 = two(x), x1 = two(x + OWN), radial = {w.radial[n].x * x1.x, w.radial[n].y * x1.y}, turned = {0.0f, 0.0f};
            float u[3] = {direction.x, direction.y, direction.z};
            sums[0] = fmaf(w.q[n].x, x0.x, sums[0]);
            sums[1] = fmaf(w.q[n].y, x0.y, sums[1]);
            if (l > 0) {
                float2 x2 = two(x + 2 * OWN);
                turned = {w.mu[n].x * x2.x, w.mu[n].y * x2.y};
            }
#pragma unroll
            for (int c = 0; c < 3; c++) {
                float &a = sums[2 + 2 * c], &b = sums[3 + 2 * c];
                a = fmaf(u[c], radial.x, a);
                b = fmaf(u[c], radial.y, b);
                if (l == 0) continue;
                float2 mu = two(x + (3 + c) * OWN);
                a = fmaf(turned.x, mu.x, a);
                b = fmaf(turned.y, mu.y, b);
            }
        }
        if (!t.ends()) continue;
        __syncwarp();
        float sum = sum_groups<8>(sums);
        int group = warp_lane() / 4;
        room(GATHERED)[(part_of(t) * 6 + group / 2) * OWN + t.channel + group % 2] = sum;
        if (WARP_A_TURN) break;
#pragma unroll
        for (int k = 0; k < 8; k++) sums[k] = 0.0f;
    }
}

// Where a pair leaves its gradients of a layer behind the first, dE/dd and dE/dû of the directed pair (own atom <- other), [4].
__device__ inline float* gradient_at(const Resident& network, int l, int pair)
{
    return network.sums + (((long long)here(blockIdx.x) * (LAYERS - 1) + l - 1) * ALL_PAIRS + pair) * 4;
}

// The sum over those layers, of one of the four.
__device__ inline float sum_layers(const Resident& network, int pair, int which)
{
    float sum = 0.0f;
#pragma unroll
    for (int l = LAYERS - 1; l > 0; l--) sum += gradient_at(network, l, pair)[which];
    return sum;
}

// What the way back needs of a warp's first turn. `sums`: gradients of the layers behind, where the first one's are made.
struct Ahead {
    Filters filters, slopes;
    float sums[2];
};

__device__ inline void look_back(const Resident& network, const Lane& t, int l, Ahead& ahead)
{
#pragma unroll
    for (int n = 0; n < 2; n++)
        ahead.sums[n] = l == 0 && t.pair(n) < t.end ? sum_layers(network, t.pair(n), t.channel / 2) : 0.0f;
    make_filters<true>(network, t, l, ahead.filters, ahead.slopes);
}

__device__ inline Ahead look_back(const Resident& network, int l)
{
    const Lane t = make_lane();
    Ahead ahead;
    if (t.turns > 0) look_back(network, t, l, ahead);
    return ahead;
}

// Their adjoint in layer l, at the cluster's atoms j from the centres i: gathered[part][6][OWN] in the order x^q, x^R, x^μ, μ; and the
// gradients of the directed pairs. In the first layer only the latter, which go to the atom's block in the exchange that goes on.
__device__ inline void message_gradients(const Resident& network, int l, Ahead& ahead, int exchanges)
{
    float sums[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f}, others[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    bool ready = true;
#pragma unroll 1
    for (Lane t = make_lane(); t.turns > 0; t.next()) {
        if (!ready) look_back(network, t, l, ahead);
        ready = false;
        const float* own = room(SENT + t.channel) + t.atom * 6 * OWN;
        float2 x[3], mu[3];
#pragma unroll
        for (int c = 0; c < 3; c++) {
            x[c] = two(own + c * OWN);
            mu[c] = two(own + (3 + c) * OWN);
        }
#pragma unroll
        for (int n = 0; n < 2; n++) {
            int pair = t.pair(n);
            bool on = pair < t.end;
            const Filters &w = ahead.filters, &s = ahead.slopes;
            float4 direction = *pair_at(network, min(pair, t.end - 1));
            // From the centre to the sender.
            float u[3] = {-direction.x, -direction.y, -direction.z};
            const float* g = room(ALL + t.channel) + other_atom(direction) * GRADIENT_STRIDE;
            float2 gq = two(g), gm[3];
#pragma unroll
            for (int c = 0; c < 3; c++) gm[c] = two(g + (1 + c) * OWN);
            float2 ug = {0.0f, 0.0f};
#pragma unroll
            for (int c = 0; c < 3; c++) ug = {fmaf(u[c], gm[c].x, ug.x), fmaf(u[c], gm[c].y, ug.y)};
            float2 radial = {w.radial[n].x * x[1].x, w.radial[n].y * x[1].y};
            float2 along = {s.q[n].x * x[0].x * gq.x, s.q[n].y * x[0].y * gq.y};
            along = {fmaf(s.radial[n].x * x[1].x, ug.x, along.x), fmaf(s.radial[n].y * x[1].y, ug.y, along.y)};
            if (l > 0) {
                // Lanes without a pair have filters of zero.
                float2 mg = {0.0f, 0.0f}, turned = {w.mu[n].x * x[2].x, w.mu[n].y * x[2].y};
#pragma unroll
                for (int c = 0; c < 3; c++) mg = {fmaf(mu[c].x, gm[c].x, mg.x), fmaf(mu[c].y, gm[c].y, mg.y)};
                along = {fmaf(s.mu[n].x * x[2].x, mg.x, along.x), fmaf(s.mu[n].y * x[2].y, mg.y, along.y)};
                sums[0] = fmaf(w.q[n].x, gq.x, sums[0]);
                sums[1] = fmaf(w.q[n].y, gq.y, sums[1]);
                sums[2] = fmaf(w.radial[n].x, ug.x, sums[2]);
                sums[3] = fmaf(w.radial[n].y, ug.y, sums[3]);
                sums[4] = fmaf(w.mu[n].x, mg.x, sums[4]);
                sums[5] = fmaf(w.mu[n].y, mg.y, sums[5]);
                sums[6] = fmaf(turned.x, gm[0].x, sums[6]);
                sums[7] = fmaf(turned.y, gm[0].y, sums[7]);
#pragma unroll
                for (int c = 1; c < 3; c++) {
                    others[2 * c - 2] = fmaf(turned.x, gm[c].x, others[2 * c - 2]);
                    others[2 * c - 1] = fmaf(turned.y, gm[c].y, others[2 * c - 1]);
                }
            }
            // ∂E/∂d and ∂E/∂û of the pair: over its lanes, of which each is left with one.
            float r[4] = {along.x + along.y, fmaf(radial.x, gm[0].x, radial.y * gm[0].y), fmaf(radial.x, gm[1].x, radial.y * gm[1].y),
                          fmaf(radial.x, gm[2].x, radial.y * gm[2].y)};
            bool upper = t.channel & 4;
#pragma unroll
            for (int c = 0; c < 2; c++) {
                float give = upper ? r[c] : r[c + 2];
                r[c] = (upper ? r[c + 2] : r[c]) + __shfl_xor_sync(FULL, give, 2);
            }
            upper = t.channel & 2;
            float give = upper ? r[0] : r[1], sum = ahead.sums[n] + ((upper ? r[1] : r[0]) + __shfl_xor_sync(FULL, give, 1));
            if (l > 0) {
                if (on) gradient_at(network, l, pair)[t.channel / 2] = sum;
                continue;
            }
            float4 all = {__shfl_sync(FULL, sum, 0, 4), __shfl_sync(FULL, sum, 1, 4), __shfl_sync(FULL, sum, 2, 4),
                          __shfl_sync(FULL, sum, 3, 4)};
            if (on && t.channel == 0)
                send_into(window_of(t.atom), (VECTORS + (here(cluster_rank()) * ATOMS + pair - first_of(t.atom)) * 4) * 4, all,
                          (exchanges & 1) * 8);
        }
        if (l == 0 || !t.ends()) continue;
        float sum = sum_groups<8>(sums), rest = sum_groups<4>(others);
        int group = warp_lane() / 4;
        float* to = room(GATHERED + t.channel) + part_of(t) * 6 * OWN;
        to[group / 2 * OWN + group % 2] = sum;
        // Two groups have each of the other four.
        if (group % 2 == 0) to[(4 + group / 4) * OWN + group / 2 % 2] = rest;
        if (WARP_A_TURN) break;
#pragma unroll
        for (int k = 0; k < 8; k++) sums[k] = 0.0f;
#pragma unroll
        for (int k = 0; k < 4; k++) others[k] = 0.0f;
    }
}
