// Messages and their adjoint at the atoms of a cluster: its warps share the pairs of each atom, in the block's channels.
#pragma once
#include "few.cuh"
#include "table.cuh"

// Lanes that share a pair, pairs that a warp takes at once.
#define LANES (OWN / 4)
#define GROUPS (32 / LANES)

// Warps that share an atom's pairs: at most as many as take 64 pairs at once.
__device__ inline int members_of(const Team& t) { return min(max(WARPS / t.group, 1), 64 / GROUPS); }

// Which of them this warp is; every `crews`-th atom is its own. The first one's pairs are looked up at once.
struct Crew {
    int members, crews, crew, member;
    unsigned begin, end;
};

__device__ inline Crew make_crew(const Parameters& p, const Team& t)
{
    Crew c;
    c.members = members_of(t);
    c.crews = WARPS / c.members;
    c.crew = threadIdx.x / 32 / c.members;
    // Warps that make no whole crew have no atom.
    if (c.crew >= c.crews) c.crew = t.group;
    c.member = threadIdx.x / 32 % c.members;
    int atom = t.first + min(c.crew, t.atoms - 1);
    c.begin = p.rows[atom];
    c.end = c.begin + p.inside[atom];
    return c;
}

// This lane's channels in the filter table.
__device__ inline const float* own_channels(const Parameters& p, const float* table, int channel)
{
    return table + (long long)(channel / 32) * (p.intervals + 3) * 96 + channel % 32;
}

// Messages to the cluster's atoms, by warps: parts[atom][member][4][OWN].
__device__ inline void gather_messages(const Parameters& p, const Team& t, const Crew& c, const float* table, const float* x,
                                       const float* mu, bool first)
{
    int lane = warp_lane(), within = lane % LANES * 4, group = lane / LANES, channel = t.rank * OWN + within;
    float per_angstrom = (float)(1.0 / p.spacing);
    const float* channels = own_channels(p, table, channel);
    for (int local = c.crew; local < t.atoms; local += c.crews) {
        int atom = t.first + local;
        unsigned begin = c.begin, end = c.end;
        if (local != c.crew) {
            begin = p.rows[atom];
            end = begin + p.inside[atom];
        }
        Message sum = {zero4(), zero4(), zero4(), zero4()};
        unsigned step = c.members * GROUPS, at = begin + c.member * GROUPS + group;
        Pair next;
        if (at < end) load_pair(p, at, next);
#pragma unroll 1
        for (; at < end; at += step) {
            // The next pair travels while this one is worked on.
            Pair pair = next;
            if (at + step < end) load_pair(p, at + step, next);
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
// gradients of pairs are added up, or set where there is nothing before.
__device__ inline void gather_gradients(const Parameters& p, const Team& t, const Crew& c, const float* table, const float* x,
                                        const float* mu, const float* gq, const float* gmu, bool first, bool more)
{
    int lane = warp_lane(), within = lane % LANES * 4, group = lane / LANES, channel = t.rank * OWN + within;
    float per_angstrom = (float)(1.0 / p.spacing);
    const float* channels = own_channels(p, table, channel);
    float4* gradients = p.gradients + t.rank * p.capacity;
    for (int local = c.crew; local < t.atoms; local += c.crews) {
        int atom = t.first + local;
        Sender own = sender(first, x + (long long)sender_row(p, first, atom) * SENDER_WIDTH + channel,
                            mu + (long long)atom * 3 * FEATURES + channel);
        unsigned begin = c.begin, end = c.end;
        if (local != c.crew) {
            begin = p.rows[atom];
            end = begin + p.inside[atom];
        }
        Gathered sum = {zero4(), zero4(), zero4(), zero4(), zero4(), zero4()};
        unsigned step = c.members * GROUPS, from = begin + c.member * GROUPS;
        Pair next;
        if (from < end) load_pair(p, min(from + group, end - 1), next);
#pragma unroll 1
        for (; from < end; from += step) {
            bool on = from + group < end;
            Pair pair = next;
            if (from + step < end) load_pair(p, min(from + step + group, end - 1), next);
            const float* gi = gmu + (long long)pair.neighbor * 3 * FEATURES + channel;
            float4 g = load4(gq + (long long)pair.neighbor * FEATURES + channel);
            float4 h0 = load4(gi), h1 = load4(gi + FEATURES), h2 = load4(gi + 2 * FEATURES);
            if (!on) g = h0 = h1 = h2 = zero4();
            const float* row = channels + (long long)pair.interval * 96;
            float4 r = add_adjoint(first, pair, per_angstrom, row, own, g, h0, h1, h2, sum);
            for (int offset = 1; offset < LANES; offset <<= 1) {
                r.x += __shfl_xor_sync(FULL, r.x, offset);
                r.y += __shfl_xor_sync(FULL, r.y, offset);
                r.z += __shfl_xor_sync(FULL, r.z, offset);
                r.w += __shfl_xor_sync(FULL, r.w, offset);
            }
            if (on && within == 0) gradients[pair.entry] = more ? add(gradients[pair.entry], r) : r;
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

// What the warps of this thread's atom have gathered for its channel: value k of `values`.
__device__ inline float gathered(const Team& t, int values, int k)
{
    int members = members_of(t);
    float sum = 0.0f;
    for (int m = 0; m < members; m++) sum += t.parts[((t.local * members + m) * values + k) * OWN + t.own];
    return sum;
}
