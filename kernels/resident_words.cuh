// What clusters tell each other, through memory: words of three numbers and a tag, written and read as one. Nobody waits for more than
// the words that it needs.
//
// The tag is the number of the evaluation. Each kind of word has a place of its own in every evaluation. Before a block writes one
// again, it has had words of the same evaluation from the block of its rank in each other cluster, and through the exchanges inside
// of clusters from all blocks: everybody has read what was there.
#pragma once
#include "resident.cuh"

// Of each atom and channel, in each layer's exchange: two words. Layers but the first on the way forward, all on the way back.
#define SENT_WORDS (CLUSTER * ATOMS * 2 * OWN)
// Behind them those of pairs, [ATOMS][ATOMS], and of atoms, [ATOMS][FORCE_WORDS].
#define PAIR_WORDS ((2 * LAYERS - 1) * SENT_WORDS)
#define ATOM_WORDS (PAIR_WORDS + ATOMS * ATOMS)
#define FORCE_WORDS 4

// The words of this block's channels in an exchange: layer l's on the way forward (from 1), or on the way back.
__device__ inline float4* sent_words(const Resident& network, int l, bool back)
{
    return network.words + ((back ? LAYERS - 1 : -1) + l) * SENT_WORDS + here(cluster_rank()) * (ATOMS * 2 * OWN);
}

__device__ inline bool has_tag(const float4& word, unsigned tag) { return __float_as_uint(word.w) == tag; }

// Tells other clusters two words of an owner's atom and channel.
__device__ inline void tell(float4* words, const Owner& o, unsigned tag, const float* first, const float* second)
{
    if (CLUSTERS == 1 || !o.mine()) return;
    float4* to = words + (own_atoms().first + o.atom) * 2 * OWN + o.channel;
    post(to, first[0], first[1], first[2], tag);
    post(to + OWN, second[0], second[1], second[2], tag);
}

// Hands the words of all other clusters' atoms to `take(atom, which, channel, word)`, which of the two, as they come.
template <class Take> __device__ inline void hear(const float4* words, unsigned tag, Take take)
{
    if (CLUSTERS == 1) return;
    constexpr int others = ATOMS - ATOMS / CLUSTERS, turns = larger(1, (others * 2 * OWN + FEW_THREADS - 1) / FEW_THREADS);
    const Atoms own = own_atoms();
    int thread = thread_here(), begin = own.first * 2 * OWN, count = own.count * 2 * OWN;
    float4 heard[turns];
    bool missing;
    do {
        missing = false;
#pragma unroll
        for (int n = 0; n < turns; n++) {
            int at = thread + n * FEW_THREADS;
            if (at < ATOMS * 2 * OWN - count) heard[n] = look(words + at + (at < begin ? 0 : count), tag);
        }
#pragma unroll
        for (int n = 0; n < turns; n++)
            missing = missing || (thread + n * FEW_THREADS < ATOMS * 2 * OWN - count && !has_tag(heard[n], tag));
    } while (missing);
#pragma unroll
    for (int n = 0; n < turns; n++) {
        int at = thread + n * FEW_THREADS, place = at + (at < begin ? 0 : count);
        if (at < ATOMS * 2 * OWN - count) take(place / (2 * OWN), place / OWN % 2, place % OWN, heard[n]);
    }
}
