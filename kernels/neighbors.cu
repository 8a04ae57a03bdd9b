// What the two ways to make the list of neighbours share: bins.cu for many atoms, few_list.cu for few. The list is the one that
// the CPU makes, entry by entry: a function of positions, cell and range alone. All kernels do nothing unless a rebuild is due.
#include "common.cuh"

__device__ inline bool due(const Parameters& p) { return p.control->rebuild != 0 && p.control->status == 0; }

// The same, for all threads of a block that waits for itself later: another block may complain meanwhile.
__device__ inline bool due_for_block(const Parameters& p)
{
    __shared__ bool go;
    if (threadIdx.x == 0) go = due(p);
    __syncthreads();
    return go;
}

__device__ inline void fractional(const Parameters& p, const double* r, double* out)
{
    for (int k = 0; k < 3; k++) out[k] = r[0] * p.inverse[k] + r[1] * p.inverse[3 + k] + r[2] * p.inverse[6 + k];
}

// Fractional coordinates of an atom inside the cell, and the whole cells taken away for that.
__device__ inline void wrapped(const Parameters& p, int atom, double* out, int* image)
{
    const double* x = p.positions + 3 * atom;
    double at[3];
    fractional(p, x, at);
    for (int k = 0; k < 3; k++) image[k] = p.periodic[k] ? (int)floor(at[k]) : 0;
    double r[3];
    for (int c = 0; c < 3; c++)
        r[c] = x[c] - (p.cell[c] * image[0] + p.cell[3 + c] * image[1] + p.cell[6 + c] * image[2]);
    fractional(p, r, out);
}

// Complains about a position that is no finite number: infinity and NaN both fail.
__device__ inline void check_position(const Parameters& p, int atom)
{
    for (int c = 0; c < 3; c++)
        if (!(fabs(p.positions[3 * atom + c]) < 1e300)) fail(p.control, STATUS_POSITION, atom);
}

// Whether a pair of the list, which has the images, is one: the decision itself, from unwrapped positions in float64.
__device__ inline bool in_range(const Parameters& p, const int* images, int atom, Listed listed)
{
    Entry entry = entry_of(images, atom, listed);
    double3 r = pair_vector(p, atom, entry.neighbor, entry.x, entry.y, entry.z);
    return norm2(r.x, r.y, r.z) < p.range * p.range;
}

// One warp an atom: where each of its pairs stands in the neighbour's row. Each pair is looked for once, from the end that
// comes first.
extern "C" __global__ void row_reverse(Parameters p)
{
    int row = warp_index();
    if (!due(p) || row >= p.atoms) return;
    int atom = atom_of(p, row);
    unsigned end = p.rows[atom + 1];
    for (unsigned e = p.rows[atom] + warp_lane(); e < end; e += 32) {
        Listed own = p.entries[e];
        int other = neighbor_of(own);
        Listed wanted = other_end(own, atom);
        if (other < atom || (other == atom && wanted < own)) continue;
        unsigned low = p.rows[other], high = p.rows[other + 1];
        while (low < high) {
            unsigned middle = low + (high - low) / 2;
            if (p.entries[middle] < wanted) low = middle + 1;
            else high = middle;
        }
        p.reverse[e] = low;
        p.reverse[low] = e;
    }
}
