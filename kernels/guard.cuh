// Below the distances that the network was trained on: who comes there first, and the repulsion that takes over.
#pragma once
#include "common.cuh"

#if WATCH
// A pair of atoms in a step as one number: step, atom, neighbour, of ATOM_BITS bits each atom. The smallest of them is the
// first step's, there the lowest atom's, and of its neighbours the lowest. Steps count from the last one of the launch, which
// takes a thousand at most.
#define ATOM_MASK ((1ull << ATOM_BITS) - 1)

__device__ inline unsigned long long contact_step(const Control* control)
{
    // Outside a launch the last one may be far away, but nothing is compared with another step then.
    return (unsigned long long)(control->step - control->target + 2048) & ~0ull >> 2 * ATOM_BITS;
}

// Remembers two atoms if they are too close, and says so in `close`; `now` tells the step. A value that is read too late is
// only too large.
__device__ inline void note_contact(const Parameters& p, const Control* now, int* close, int i, int j, double d)
{
    int low = min(i, j), high = max(i, j);
    int a = p.species[low], b = p.species[high];
    int both = min(a, b) * p.elements + max(a, b);
    if (!(d < p.element_pairs[both].limit)) return;
    unsigned long long key = contact_step(now) << 2 * ATOM_BITS | (unsigned long long)low << ATOM_BITS | high;
    if (key >= p.contacts[both].key) return;
    atomicMin(&p.contacts[both].key, key);
    *close = 1;
}

// Completes what was remembered in this evaluation, which belongs to `step`. Every thread of one block must call it.
__device__ inline void complete_contacts(const Parameters& p, long long step)
{
    unsigned long long now = contact_step(p.control);
    for (int both = threadIdx.x; both < p.elements * p.elements; both += blockDim.x) {
        Contact* contact = p.contacts + both;
        if (contact->key == ~0ull || contact->key >> 2 * ATOM_BITS != now) continue;
        int low = (int)(contact->key >> ATOM_BITS & ATOM_MASK), high = (int)(contact->key & ATOM_MASK);
        double shortest = p.cutoff;
        for (unsigned e = p.rows[low], end = row_end(p, low); e < end; e++) {
            Entry entry = entry_of(p.images, low, p.entries[e]);
            if (entry.neighbor != high) continue;
            double3 r = pair_vector(p, low, high, entry.x, entry.y, entry.z);
            shortest = fmin(shortest, sqrt(norm2(r.x, r.y, r.z)));
        }
        contact->distance = shortest;
        contact->step = step;
    }
}
#endif

#if REPULSION
struct Repelled {
    double energy; // eV
    double slope;  // its derivative by the distance, eV/Å
};

// The universal potential of Ziegler, Biersack & Littmark, switched off between `inner` and `outer`: see
// src/backend/zbl.rs. Not inlined: it is seldom needed, and would take registers from what always is.
__device__ __noinline__ Repelled zbl(double d, double strength, double length, double inner, double outer)
{
    const double c[4] = {0.18175, 0.50986, 0.28022, 0.02817}, b[4] = {3.19980, 0.94229, 0.40290, 0.20162};
    double screening = 0.0, slope = 0.0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        double term = c[k] * exp(-b[k] * (d / length));
        screening += term;
        slope -= b[k] / length * term;
    }
    double energy = strength / d * screening, derivative = strength / d * (slope - screening / d);
    if (d <= inner) return {energy, derivative};
    double width = outer - inner, t = (outer - d) / width;
    double on = t * t * t * (10.0 + t * (6.0 * t - 15.0)), fall = 30.0 * t * t * (1.0 - t) * (1.0 - t) / width;
    return {energy * on, derivative * on - energy * fall};
}

__device__ inline const ElementPair& elements_of(const Parameters& p, int atom, int neighbor)
{
    return p.element_pairs[p.species[atom] * p.elements + p.species[neighbor]];
}

// How far towards the end of the switch, 0 to 1.
__device__ inline double switched(const ElementPair& both, double d) { return fmin((both.outer - d) / (both.outer - both.inner), 1.0); }

// The distance that the network sees of two atoms, Å: it was never asked about those below `outer`, see src/backend/zbl.rs.
__device__ inline double seen_distance(const ElementPair& both, double d)
{
    if (!(d < both.outer)) return d;
    double u = switched(both, d);
    return both.outer - (both.outer - both.inner) * u * (1.0 - u * u * (1.0 - 0.5 * u));
}

// The repulsion between two atoms: the derivative of the energy by their vector r, eV/Å, and the energy, eV; and of that pair r,
// its length d, Å, and the derivative by d of the distance that the network sees.
struct Repulsion {
    double3 r, gradient;
    double energy, d, slope;
};

__device__ inline Repulsion repel_at(const Parameters& p, int atom, int neighbor, double3 r)
{
    const ElementPair& both = elements_of(p, atom, neighbor);
    double d = sqrt(norm2(r.x, r.y, r.z));
    if (!(d < both.outer)) return {r, make_double3(0.0, 0.0, 0.0), 0.0, d, 1.0};
    Repelled repelled = zbl(d, both.strength, both.length, both.inner, both.outer);
    double along = repelled.slope / d, u = switched(both, d);
    return {r, make_double3(along * r.x, along * r.y, along * r.z), repelled.energy, d, 1.0 - u * u * (3.0 - 2.0 * u)};
}

// Between an atom and the neighbour in an entry of its row.
__device__ inline Repulsion repel(const Parameters& p, int atom, int e)
{
    Entry entry = entry_of(p.images, atom, p.entries[e]);
    return repel_at(p, atom, entry.neighbor, pair_vector(p, atom, entry.neighbor, entry.x, entry.y, entry.z));
}
#endif
