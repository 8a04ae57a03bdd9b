// What the messages of many atoms and their adjoint share where filters come from tensor cores: a warp has one atom, and 16 of its
// pairs at a time.
#pragma once
#include "message.cuh"
#include "mma.cuh"

// An atom's pairs inside the cutoff, and where what it sends is.
struct Row {
    unsigned begin, end;
    int sender;
};

// None behind the last atom.
__device__ inline Row row_at(const Parameters& p, bool first, int own)
{
    if (own >= p.atoms) return {0, 0, 0};
    int atom = atom_of(p, own);
    unsigned begin = p.rows[atom];
    return {begin, begin + p.inside[atom], sender_row(p, first, own)};
}

// The lane, for what is rare: registers are for what is not.
__device__ inline int lane_here() { return here((int)threadIdx.x) & 31; }

// The next 16 pairs on their way to shared memory.
__device__ inline void ask_pairs(const Parameters& p, Pair* tile, unsigned at, unsigned end)
{
    int piece = lane_here();
    ask((float4*)tile + piece, (const float4*)(p.pairs + at + piece / 2) + piece % 2, at + piece / 2 < end);
}

// Adds up two numbers between lanes that are `offset` apart; each keeps one sum: the upper of the two lanes that of `other`.
__device__ inline float keep_half(float mine, float other, int offset)
{
    bool upper = warp_lane() & offset;
    float keep = upper ? other : mine, give = upper ? mine : other;
    return keep + __shfl_xor_sync(FULL, give, offset);
}
