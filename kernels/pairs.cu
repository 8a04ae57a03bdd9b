// Pairs inside the cutoff, out of those of the list, and from their gradients to forces. Vectors are subtracted, and the
// cutoff decided, in float64; then they are narrowed.
#include "guard.cuh"

// A pair of atoms r apart, from the first to the other, if it is inside the cutoff; all of it but the entry. `alarm` is told of what
// must not be, and `close` whether atoms are closer than any that the network was trained on; `now` tells the step.
__device__ inline bool make_pair(const Parameters& p, const Control* now, Control* alarm, int* close, int atom, int other, double3 r,
                                 Pair& pair)
{
    double d = sqrt(norm2(r.x, r.y, r.z));
    // A distance that is no number is inside, so that it is found.
    if (d >= p.cutoff) return false;
    if (!(d > 0.0)) fail(alarm, STATUS_OVERLAP, atom);
    pair.neighbor = row_of(p, other);
    double seen = d;
#if REPULSION
    if (d < p.repelled) seen = seen_distance(elements_of(p, atom, other), d);
#endif
#if RADIAL
    // f_c = ½ (cos(π d / r_c) + 1) = cos²(½ π d / r_c).
    const float half_pi = 1.57079633f;
    float sine, cosine;
    sincospif((float)(0.5 * seen / p.cutoff), &sine, &cosine);
    pair.inside = cosine * cosine;
    pair.slope = -2.0f * half_pi / (float)p.cutoff * sine * cosine;
#else
    double place = seen / p.spacing;
    pair.interval = max(min((int)place, p.intervals - 1), 0);
    pair.fraction = (float)(place - pair.interval);
#endif
    pair.ux = (float)(r.x / (d + p.epsilon));
    pair.uy = (float)(r.y / (d + p.epsilon));
    pair.uz = (float)(r.z / (d + p.epsilon));
    pair.distance = (float)seen;
#if WATCH
    if (d < p.watched) note_contact(p, now, close, atom, other, d);
#endif
    return true;
}

// The pair of an atom in an entry of its row.
__device__ inline bool pair_of(const Parameters& p, const Control* now, Control* alarm, int* close, int atom, unsigned e, Pair& pair)
{
    Entry entry = entry_of(p.images, atom, p.entries[e]);
    pair.entry = (int)e;
    return make_pair(p, now, alarm, close, atom, entry.neighbor, pair_vector(p, atom, entry.neighbor, entry.x, entry.y, entry.z), pair);
}

// Keeps the pairs of an atom's row that are inside the cutoff, in the row's order, and tells all lanes how many they are.
// Every lane of a warp must call it.
__device__ inline int find_row(const Parameters& p, const Control* now, Control* alarm, int* close, int atom, unsigned begin,
                               unsigned end, Pair* to)
{
    int count = 0;
    for (unsigned first = begin; first < end; first += 32) {
        unsigned e = first + warp_lane();
        Pair pair;
        bool in = e < end && pair_of(p, now, alarm, close, atom, e, pair);
        unsigned all = __ballot_sync(FULL, in);
        if (in) to[count + __popc(all & ((1u << warp_lane()) - 1))] = pair;
        count += __popc(all);
    }
    return count;
}

#if !FEW
// One warp an atom. A status that this kernel sets stops none of its threads, so that they stay together and the lowest atom
// is found.
extern "C" __global__ void find_pairs(Parameters p)
{
    int row = warp_index();
    if (row >= p.atoms) return;
    int status = p.control->status, atom = atom_of(p, row);
    unsigned begin = p.rows[atom], end = p.rows[atom + 1];
    if (status != 0 && status != STATUS_OVERLAP) return;
    int count = find_row(p, p.control, p.control, &p.control->close, atom, begin, end, p.pairs + begin);
    if (warp_lane() == 0) p.inside[atom] = count;
}
#endif

// dE/dr of the directed pair (neighbour <- centre), its r pointing from neighbour to centre, from the gradients kept at
// list index `entry`; `sign` is -1 for a row's own entry and 1 for the same pair seen from the other end.
//   g_r = dE/dd r/d + (dE/dû - (dE/dû·û) r/d) / (d + ε)
// `d`: that of the pair; the network sees another one where `slope`, the derivative of that by d, is not 1.
__device__ inline double3 pair_gradient(const Parameters& p, const Pair& pair, long long entry, double sign, double d, double slope)
{
    double gd = 0, gx = 0, gy = 0, gz = 0;
    for (int s = 0; s < PARTS; s++) {
        float4 g = p.gradients[s * p.capacity + entry];
        gd += (double)g.x;
        gx += (double)g.y;
        gy += (double)g.z;
        gz += (double)g.w;
    }
    double wide = d + p.epsilon;
    double ux = sign * pair.ux, uy = sign * pair.uy, uz = sign * pair.uz;
    double along = gd * slope - (gx * ux + gy * uy + gz * uz) / wide, stretch = wide / d;
    return make_double3((ux * stretch * along + gx / wide) * p.energy_unit,
                        (uy * stretch * along + gy / wide) * p.energy_unit,
                        (uz * stretch * along + gz / wide) * p.energy_unit);
}

__device__ inline double warp_sum(double value)
{
    for (int offset = 16; offset > 0; offset >>= 1) value += __shfl_xor_sync(FULL, value, offset);
    return value;
}

// What pairs do to an atom: the force on it, eV/Å, and its half of the repulsion, eV.
struct Push {
    double x, y, z, energy;
};

__device__ inline Push add(const Push& a, const Push& b) { return {a.x + b.x, a.y + b.y, a.z + b.z, a.energy + b.energy}; }

// That of a pair of its row: the gradient of the pair seen from the other end − gradient of the pair, and the repulsion.
__device__ inline Push push_of(const Parameters& p, int atom, const Pair& pair)
{
    unsigned reverse = p.reverse[pair.entry];
    double d = pair.distance, slope = 1.0;
    Push push = {0.0, 0.0, 0.0, 0.0};
#if REPULSION
    if (pair.distance < p.repelled) {
        Repulsion both = repel(p, atom, pair.entry);
        push = {both.gradient.x, both.gradient.y, both.gradient.z, 0.5 * both.energy};
        if (both.slope < 1.0) {
            d = both.d;
            slope = both.slope;
        }
    }
#endif
    double3 own = pair_gradient(p, pair, pair.entry, -1.0, d, slope);
    double3 other = pair_gradient(p, pair, reverse, 1.0, d, slope);
    return add({other.x - own.x, other.y - own.y, other.z - own.z, 0.0}, push);
}

// Adds up those of a warp's lanes and leaves the sum as the atom's; returns the force.
__device__ inline double3 leave_force(const Parameters& p, int atom, const Push& push)
{
    double3 f = make_double3(warp_sum(push.x), warp_sum(push.y), warp_sum(push.z));
    if (warp_lane() == 0) {
        p.forces[3 * atom] = f.x;
        p.forces[3 * atom + 1] = f.y;
        p.forces[3 * atom + 2] = f.z;
    }
#if REPULSION
    double energy = warp_sum(push.energy);
    if (warp_lane() == 0) p.repulsion[atom] = energy / p.energy_unit;
#endif
    return f;
}

// What the `count` pairs of an atom inside the cutoff do to it. Every lane of a warp must call it.
__device__ inline void collect(const Parameters& p, int atom, int count)
{
    unsigned begin = p.rows[atom];
    Push push = {0.0, 0.0, 0.0, 0.0};
    for (int k = warp_lane(); k < count; k += 32) push = add(push, push_of(p, atom, p.pairs[begin + k]));
    leave_force(p, atom, push);
}

#if !FEW
// One warp an atom.
extern "C" __global__ void collect_forces(Parameters p)
{
    int row = warp_index();
    if (p.control->status != 0 || row >= p.atoms) return;
    int atom = atom_of(p, row);
    collect(p, atom, p.inside[atom]);
}
#endif

// One warp an atom: its part of the strain derivative, Σ r ⊗ dE/dr over its row, [N][3][3]. Only when somebody asks.
extern "C" __global__ void collect_strain(Parameters p)
{
    int atom = warp_index(), lane = warp_lane();
    if (p.control->status != 0 || atom >= p.atoms) return;
    unsigned begin = p.rows[atom];
    int count = p.inside[atom];
    double strain[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (int k = lane; k < count; k += 32) {
        Pair pair = p.pairs[begin + k];
        double d = pair.distance, slope = 1.0;
#if REPULSION
        if (pair.distance < p.repelled) {
            Repulsion both = repel(p, atom, pair.entry);
            // Half of a pair's: it stands in both rows.
            double half[3] = {0.5 * both.r.x, 0.5 * both.r.y, 0.5 * both.r.z};
            for (int a = 0; a < 3; a++) {
                strain[3 * a] += half[a] * both.gradient.x;
                strain[3 * a + 1] += half[a] * both.gradient.y;
                strain[3 * a + 2] += half[a] * both.gradient.z;
            }
            if (both.slope < 1.0) {
                d = both.d;
                slope = both.slope;
            }
        }
#endif
        double3 g = pair_gradient(p, pair, pair.entry, -1.0, d, slope);
        double wide = d + p.epsilon;
        double r[3] = {-wide * pair.ux, -wide * pair.uy, -wide * pair.uz};
        for (int a = 0; a < 3; a++) {
            strain[3 * a] += r[a] * g.x;
            strain[3 * a + 1] += r[a] * g.y;
            strain[3 * a + 2] += r[a] * g.z;
        }
    }
    for (int k = 0; k < 9; k++) {
        double sum = warp_sum(strain[k]);
        if (lane == 0) p.strain[9 * atom + k] = sum;
    }
}
