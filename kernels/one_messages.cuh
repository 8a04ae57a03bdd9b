// Messages and their adjoint in a block's own channels of all atoms of a system: no other block has to do with them. All pairs of
// atoms are looked at, the list or not: those beyond the cutoff have filters of zero.
#pragma once
#include "one.cuh"
#include "table.cuh"

// The place of two atoms among all pairs.
__device__ inline int pair_place(int i, int j)
{
    int low = min(i, j), high = max(i, j);
    return high * (high - 1) / 2 + low;
}

// Distances and directions of all pairs. `own` has the atoms where they are now. The block must wait before it uses them.
__device__ inline void find_pairs(const Parameters& own)
{
    double per_angstrom = 1.0 / own.spacing;
#pragma unroll 1
    for (int place = threadIdx.x; place < ALL_PAIRS; place += FEW_THREADS) {
        // Of so few atoms the root in float32 is right to the last one.
        int j = (int)((1.0f + sqrtf(8.0f * place + 1.0f)) * 0.5f), i = place - j * (j - 1) / 2;
        double3 r = pair_vector(own, i, j, 0, 0, 0);
        double d = sqrt(norm2(r.x, r.y, r.z));
        // A distance that is no number is inside, so that it is found.
        bool out = d >= own.cutoff;
        if (!out && !(d > 0.0)) fail(own.control, STATUS_OVERLAP, i);
        double part = 1.0 / (d + own.epsilon), seen = d;
#if REPULSION
        if (d < own.repelled) seen = seen_distance(elements_of(own, i, j), d);
#endif
        double along = seen * per_angstrom;
        int interval = out ? -1 : max(min((int)along, own.intervals - 1), 0);
        ((float4*)room(PAIRS))[place] = make_float4((float)(r.x * part), (float)(r.y * part), (float)(r.z * part), (float)seen);
        ((float2*)room(PLACES))[place] = {__int_as_float(interval), (float)(along - interval)};
#if WATCH
        if (!out && d < own.watched) note_contact(own, own.control, &own.control->close, i, j, d);
#endif
    }
}

// Fours of channels in the filters of all pairs.
#define FILTER_FOURS (6 * ALL_PAIRS)

// Filters of all pairs in the own channels, then their slopes, for layer l: both [third][pair of atoms][OWN]. They wait in device
// memory, from where both ways take them.
__device__ inline float4* filters_of(const OneNetwork& network, int l)
{
    return (float4*)network.filters + (here(cluster_rank()) * LAYERS + l) * 2 * FILTER_FOURS;
}

// Makes them; this is one of THREADS that share it. The block must wait before it takes them.
template <int THREADS>
__device__ inline void make_filters(const Parameters& p, const OneNetwork& network, int l, int thread)
{
    int channel = here(cluster_rank()) * OWN;
    float per_angstrom = (float)(1.0 / p.spacing);
    const float* own = network.tables[l] + (long long)(channel / 32) * (p.intervals + 3) * 96 + channel % 32;
    float4* to = filters_of(network, l);
#pragma unroll 1
    for (int k = thread; k < FILTER_FOURS; k += THREADS) {
        int pair = k / 6, third = k % 6 / 2, half = k % 2;
        float2 place = ((const float2*)room(PLACES))[pair];
        int interval = __float_as_int(place.x), at = (third * ALL_PAIRS + pair) * 2 + half;
        float4 w = zero4(), s = zero4();
        if (interval >= 0) {
            Coefficients c = coefficients(own + interval * 96 + third * 32 + half * 4);
            Spline weights = spline(place.y, per_angstrom);
            w = value(weights, c);
            s = slope(weights, c);
        }
        to[at] = w;
        to[at + FILTER_FOURS] = s;
    }
}

// Filters or their slopes on their way to shared memory: asked for long before there is room for them.
struct Filters {
    static const int COUNT = (FILTER_FOURS + FEW_THREADS - 1) / FEW_THREADS;
    float4 held[COUNT];
};

__device__ inline Filters ask_for_filters(const float4* from)
{
    int thread = thread_here();
    Filters filters;
#pragma unroll
    for (int n = 0; n < Filters::COUNT; n++)
        if (thread + n * FEW_THREADS < FILTER_FOURS) filters.held[n] = from[thread + n * FEW_THREADS];
    return filters;
}

__device__ inline void put_filters(int region, const Filters& filters)
{
    int thread = thread_here();
#pragma unroll
    for (int n = 0; n < Filters::COUNT; n++)
        if (thread + n * FEW_THREADS < FILTER_FOURS) ((float4*)room(region))[thread + n * FEW_THREADS] = filters.held[n];
}

// The same where there is room for them already: they have come when the thread has waited for `all_arrived`, and the block.
__device__ inline void bring_filters(int region, const float4* from)
{
#pragma unroll 1
    for (int k = thread_here(); k < FILTER_FOURS; k += FEW_THREADS) ask((float4*)room(region) + k, from + k, true);
    asked();
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

__device__ inline float2 two(const float* at) { return *(const float2*)at; }

// Messages to all atoms, a warp an atom: four lanes have two channels each of a sender. gathered[atom][4][OWN].
__device__ inline void messages(bool first)
{
    int thread = thread_here(), lane = thread % 32, group = lane / 4, channel = lane % 4 * 2;
#pragma unroll 1
    for (int i = thread / 32; i < ATOMS; i += WARPS) {
        float sums[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 1
        for (int begin = 0; begin < ATOMS; begin += 8) {
            int j = begin + group;
            if (j >= ATOMS || j == i) continue;
            int place = pair_place(i, j);
            float4 pair = ((const float4*)room(PAIRS))[place];
            float sign = i < j ? 1.0f : -1.0f, direction[3] = {sign * pair.x, sign * pair.y, sign * pair.z};
            const float *w = room(PARTS_AT + channel) + place * OWN, *x = room(SENDERS + channel) + j * SENDER_STRIDE;
            float2 w0 = two(w), w1 = two(w + ALL_PAIRS * OWN), x0 = two(x), x1 = two(x + OWN);
            float2 radial = {w1.x * x1.x, w1.y * x1.y}, turned = {0.0f, 0.0f};
            sums[0] = fmaf(w0.x, x0.x, sums[0]);
            sums[1] = fmaf(w0.y, x0.y, sums[1]);
            if (!first) {
                float2 w2 = two(w + 2 * ALL_PAIRS * OWN), x2 = two(x + 2 * OWN);
                turned = {w2.x * x2.x, w2.y * x2.y};
            }
#pragma unroll
            for (int k = 0; k < 3; k++) {
                float &a = sums[2 + 2 * k], &b = sums[3 + 2 * k];
                a = fmaf(direction[k], radial.x, a);
                b = fmaf(direction[k], radial.y, b);
                if (first) continue;
                float2 mu = two(x + (3 + k) * OWN);
                a = fmaf(turned.x, mu.x, a);
                b = fmaf(turned.y, mu.y, b);
            }
        }
        float sum = sum_groups<8>(sums);
        room(GATHERED)[(i * 6 + group / 2) * OWN + channel + group % 2] = sum;
    }
}

// Their adjoint at all atoms j from the centres i: gathered[atom][6][OWN] in the order x^q, x^R, x^μ, μ, and the gradients of the
// directed pairs, added to those of the layers behind where there are `more`. In the first layer only the latter.
__device__ inline void message_gradients(bool first, bool more)
{
    int thread = thread_here(), lane = thread % 32, group = lane / 4, channel = lane % 4 * 2;
#pragma unroll 1
    for (int j = thread / 32; j < ATOMS; j += WARPS) {
        const float* own = room(SENDERS + channel) + j * SENDER_STRIDE;
        float2 x[3], mu[3];
#pragma unroll
        for (int k = 0; k < 3; k++) {
            x[k] = two(own + k * OWN);
            mu[k] = two(own + (3 + k) * OWN);
        }
        float sums[8] = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f}, others[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 1
        for (int begin = 0; begin < ATOMS; begin += 8) {
            int i = begin + group;
            bool on = i < ATOMS && i != j;
            int centre = on ? i : j == 0 ? 1 : 0, place = pair_place(centre, j);
            float4 pair = ((const float4*)room(PAIRS))[place];
            // From the centre to the sender.
            float sign = centre < j ? 1.0f : -1.0f, direction[3] = {sign * pair.x, sign * pair.y, sign * pair.z};
            const float *w = room(PARTS_AT + channel) + place * OWN, *s = room(VECTORS + channel) + place * OWN;
            const float* g = room(GRADIENTS + channel) + centre * GRADIENT_STRIDE;
            float2 gq = two(g), gm[3];
#pragma unroll
            for (int k = 0; k < 3; k++) gm[k] = two(g + (1 + k) * OWN);
            if (!on) gq = gm[0] = gm[1] = gm[2] = {0.0f, 0.0f};
            float2 ug = {0.0f, 0.0f};
#pragma unroll
            for (int k = 0; k < 3; k++) ug = {fmaf(direction[k], gm[k].x, ug.x), fmaf(direction[k], gm[k].y, ug.y)};
            float2 w1 = two(w + ALL_PAIRS * OWN), s0 = two(s), s1 = two(s + ALL_PAIRS * OWN);
            float2 radial = {w1.x * x[1].x, w1.y * x[1].y}, along = {s0.x * x[0].x * gq.x, s0.y * x[0].y * gq.y};
            along = {fmaf(s1.x * x[1].x, ug.x, along.x), fmaf(s1.y * x[1].y, ug.y, along.y)};
            if (!first) {
                float2 mg = {0.0f, 0.0f}, w0 = two(w), w2 = two(w + 2 * ALL_PAIRS * OWN), s2 = two(s + 2 * ALL_PAIRS * OWN);
#pragma unroll
                for (int k = 0; k < 3; k++) mg = {fmaf(mu[k].x, gm[k].x, mg.x), fmaf(mu[k].y, gm[k].y, mg.y)};
                along = {fmaf(s2.x * x[2].x, mg.x, along.x), fmaf(s2.y * x[2].y, mg.y, along.y)};
                sums[0] = fmaf(w0.x, gq.x, sums[0]);
                sums[1] = fmaf(w0.y, gq.y, sums[1]);
                sums[2] = fmaf(w1.x, ug.x, sums[2]);
                sums[3] = fmaf(w1.y, ug.y, sums[3]);
                sums[4] = fmaf(w2.x, mg.x, sums[4]);
                sums[5] = fmaf(w2.y, mg.y, sums[5]);
                float2 turned = {w2.x * x[2].x, w2.y * x[2].y};
                sums[6] = fmaf(turned.x, gm[0].x, sums[6]);
                sums[7] = fmaf(turned.y, gm[0].y, sums[7]);
#pragma unroll
                for (int k = 1; k < 3; k++) {
                    others[2 * k - 2] = fmaf(turned.x, gm[k].x, others[2 * k - 2]);
                    others[2 * k - 1] = fmaf(turned.y, gm[k].y, others[2 * k - 1]);
                }
            }
            // ∂E/∂d and ∂E/∂û of the pair: over its lanes, of which each is left with one.
            float r[4] = {along.x + along.y, fmaf(radial.x, gm[0].x, radial.y * gm[0].y), fmaf(radial.x, gm[1].x, radial.y * gm[1].y),
                          fmaf(radial.x, gm[2].x, radial.y * gm[2].y)};
            bool upper = lane & 2;
#pragma unroll
            for (int k = 0; k < 2; k++) {
                float give = upper ? r[k] : r[k + 2];
                r[k] = (upper ? r[k + 2] : r[k]) + __shfl_xor_sync(FULL, give, 2);
            }
            upper = lane & 1;
            float give = upper ? r[0] : r[1], sum = (upper ? r[1] : r[0]) + __shfl_xor_sync(FULL, give, 1);
            float* at = room(SUMS) + (j * ATOMS + centre) * 4 + lane % 4;
            if (on) *at = more ? *at + sum : sum;
        }
        if (first) continue;
        float sum = sum_groups<8>(sums), rest = sum_groups<4>(others);
        float* to = room(GATHERED + channel) + j * 6 * OWN;
        to[group / 2 * OWN + group % 2] = sum;
        // Two groups have each of the other four.
        if (group % 2 == 0) to[(4 + group / 4) * OWN + group / 2 % 2] = rest;
    }
}
