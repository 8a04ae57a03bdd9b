// Messages and their adjoint at the atoms of a cluster: its warps share the pairs of each atom, in the block's channels.
#pragma once
#include "few.cuh"
#include "table.cuh"

// Lanes that share a pair, pairs that a warp takes at once.
#define LANES (OWN / 4)
#define GROUPS (32 / LANES)

// Finds the pairs of the cluster's atoms, a warp an atom. `own` has the atoms where they are now. The block must wait before it
// uses them.
__device__ inline void find_pairs(const Parameters& p, const Parameters& own, const Team& t)
{
    unsigned base = p.rows[t.first];
    int* close = p.control->noted + (own.control->step & 1);
    for (int local = thread_here() / 32; local < t.atoms; local += WARPS) {
        int atom = t.first + local;
        unsigned begin = p.rows[atom];
        int count = find_row(own, own.control, p.control, close, atom, begin, p.rows[atom + 1], t.pairs + (begin - base));
        if (warp_lane() != 0) continue;
        t.begins[local] = begin - base;
        t.counts[local] = count;
    }
}

// Which of them this warp is; every `crews`-th atom is its own.
struct Crew {
    int members, crews, crew, member;
};

__device__ inline Crew make_crew(const Team& t)
{
    Crew c;
    c.members = t.members;
    c.crews = WARPS / c.members;
    c.crew = thread_here() / 32 / c.members;
    // Warps that make no whole crew have no atom.
    if (c.crew >= c.crews) c.crew = t.group;
    c.member = thread_here() / 32 % c.members;
    return c;
}

// This lane's channels in the filter table.
__device__ inline const float* own_channels(const Parameters& p, const float* table, int channel)
{
    return table + (long long)(channel / 32) * (p.intervals + 3) * 96 + channel % 32;
}

// Messages to the cluster's atoms, by warps: parts[atom][member][4][OWN].
__device__ inline void gather_messages(const Parameters& p, const Team& t, const float* table, const float* x, const float* mu,
                                       bool first)
{
    Crew c = make_crew(t);
    int lane = warp_lane(), within = lane % LANES * 4, group = lane / LANES, channel = t.rank * OWN + within;
    float per_angstrom = (float)(1.0 / p.spacing);
    const float* channels = own_channels(p, table, channel);
    for (int local = c.crew; local < t.atoms; local += c.crews) {
        unsigned begin = t.begins[local], end = begin + t.counts[local];
        Message sum = {zero4(), zero4(), zero4(), zero4()};
        unsigned step = c.members * GROUPS, at = begin + c.member * GROUPS + group;
#pragma unroll 1
        for (; at < end; at += step) {
            Pair pair = t.pairs[at];
            const float* xj = x + (long long)sender_row(p, first, pair.neighbor) * SENDER_WIDTH + channel;
            const float* mj = mu + (long long)pair.neighbor * 3 * FEATURES + channel;
            add_message(first, pair, per_angstrom, channels + (long long)pair.interval * 96, xj, mj, sum);
        }
        // Not where there was no pair.
        if (begin + c.member * GROUPS < end) {
            sum.s = add_groups(sum.s, LANES);
            sum.m0 = add_groups(sum.m0, LANES);
            sum.m1 = add_groups(sum.m1, LANES);
            sum.m2 = add_groups(sum.m2, LANES);
        }
        float4 result = group == 0 ? sum.s : group == 1 ? sum.m0 : group == 2 ? sum.m1 : sum.m2;
        if (group < 4) store4(t.parts + ((local * c.members + c.member) * 4 + group) * OWN + within, result);
    }
}

// The adjoint of messages at the cluster's atoms, by warps: parts[atom][member][6][OWN], in the order of `Gathered`. The
// gradients of pairs are added to those of the layers behind, where there are `more`, and left for all in the first layer.
__device__ inline void gather_gradients(const Parameters& p, const Team& t, const float* table, const float* x, const float* mu,
                                        const float* gq, const float* gmu, bool first, bool more)
{
    Crew c = make_crew(t);
    int lane = warp_lane(), within = lane % LANES * 4, group = lane / LANES, channel = t.rank * OWN + within;
    float per_angstrom = (float)(1.0 / p.spacing);
    const float* channels = own_channels(p, table, channel);
    float4* gradients = p.gradients + t.rank * p.capacity;
    for (int local = c.crew; local < t.atoms; local += c.crews) {
        int atom = t.first + local;
        Sender own = sender(first, x + (long long)sender_row(p, first, atom) * SENDER_WIDTH + channel,
                            mu + (long long)atom * 3 * FEATURES + channel);
        unsigned begin = t.begins[local], end = begin + t.counts[local];
        Gathered sum = {zero4(), zero4(), zero4(), zero4(), zero4(), zero4()};
        unsigned step = c.members * GROUPS, from = begin + c.member * GROUPS;
#pragma unroll 1
        for (; from < end; from += step) {
            bool on = from + group < end;
            unsigned at = on ? from + group : end - 1;
            Pair pair = t.pairs[at];
            const float* gi = gmu + (long long)pair.neighbor * 3 * FEATURES + channel;
            float4 g = load_sent(gq + (long long)pair.neighbor * FEATURES + channel);
            float4 h0 = load_sent(gi), h1 = load_sent(gi + FEATURES), h2 = load_sent(gi + 2 * FEATURES);
            if (!on) g = h0 = h1 = h2 = zero4();
            const float* row = channels + (long long)pair.interval * 96;
            float4 r = add_adjoint(first, pair, per_angstrom, row, own, g, h0, h1, h2, sum);
            for (int offset = 1; offset < LANES; offset <<= 1) {
                r.x += __shfl_xor_sync(FULL, r.x, offset);
                r.y += __shfl_xor_sync(FULL, r.y, offset);
                r.z += __shfl_xor_sync(FULL, r.z, offset);
                r.w += __shfl_xor_sync(FULL, r.w, offset);
            }
            if (!on || within != 0) continue;
            float4* to = t.sums ? t.sums + at : gradients + pair.entry;
            if (more) r = add(*to, r);
            *(first ? gradients + pair.entry : to) = r;
        }
        if (first) continue;
        float4 sums[6] = {sum.sq, sum.sr, sum.sm, sum.s0, sum.s1, sum.s2};
#pragma unroll
        for (int k = 0; k < 6; k++) {
            float4 s = begin + c.member * GROUPS < end ? add_groups(sums[k], LANES) : zero4();
            if (group == 0) store4(t.parts + ((local * c.members + c.member) * 6 + k) * OWN + within, s);
        }
    }
}

// Adds up what the warps of an atom have gathered, `values` for each channel. Every thread of the block must call it.
__device__ inline void add_members(const Team& t, int values)
{
    __syncthreads();
    int each = values * OWN;
    for (int k = threadIdx.x; k < t.atoms * each && t.members > 1; k += FEW_THREADS) {
        float* at = t.parts + k / each * t.members * each + k % each;
        float sum = at[0];
        for (int m = 1; m < t.members; m++) sum += at[m * each];
        at[0] = sum;
    }
    __syncthreads();
}

// Value k of `values` of this thread's channel.
__device__ inline float gathered(const Team& t, int values, int k)
{
    return t.parts[(t.local * t.members * values + k) * OWN + t.own];
}
