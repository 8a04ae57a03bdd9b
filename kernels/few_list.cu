// The list of few atoms: a block tries all atoms, and all images of them that can be near, for one.
#include "neighbors.cu"

// Threads of a block; the host has the same number.
#define LIST_THREADS 256
// Pairs of a row that are sorted in shared memory; longer rows are sorted where they lie.
#define LIST_ROOM 512

// All atoms of the system, in a block's shared memory.
struct Everyone {
    double* reach; // [3], of the list, in fractional coordinates
    double* at;    // [N][3], fractional coordinates inside the cell
    int* images;   // [N][3]
};

// Brings them there. The block must wait before it uses them.
__device__ inline Everyone wrap_all(const Parameters& p)
{
    DYNAMIC_SHARED(double, wrapped_all);
    Everyone all = {wrapped_all, wrapped_all + 3, (int*)(wrapped_all + 3 + 3 * p.atoms)};
    // Far above the rounding of fractional coordinates.
    if (threadIdx.x < 3) all.reach[threadIdx.x] = (p.range * (1.0 + 1e-6) + 1e-6) / p.heights[threadIdx.x];
    for (int atom = threadIdx.x; atom < p.atoms; atom += LIST_THREADS) wrapped(p, atom, all.at + 3 * atom, all.images + 3 * atom);
    return all;
}

// Hands every pair of an atom to `take(listed)`, by the thread that finds it.
template <class Take> __device__ inline void try_all(const Parameters& p, const Everyone& all, int atom, Take take)
{
    for (int other = threadIdx.x; other < p.atoms; other += LIST_THREADS) {
        int from[3], to[3];
#pragma unroll
        for (int k = 0; k < 3; k++) {
            double apart = all.at[3 * other + k] - all.at[3 * atom + k];
            from[k] = p.periodic[k] ? (int)ceil(-all.reach[k] - apart) : 0;
            to[k] = p.periodic[k] ? (int)floor(all.reach[k] - apart) : 0;
        }
        for (int x = from[0]; x <= to[0]; x++)
            for (int y = from[1]; y <= to[1]; y++)
                for (int z = from[2]; z <= to[2]; z++) {
                    bool itself = other == atom && x == 0 && y == 0 && z == 0;
                    Listed pair = listed(other, x, y, z);
                    if (!itself && in_range(p, all.images, atom, pair)) take(pair);
                }
    }
}

// One block an atom: how many pairs its row has.
extern "C" __global__ void few_count(Parameters p)
{
    __shared__ int found;
    if (!due_for_block(p)) return;
    int atom = blockIdx.x;
    // By all blocks: another one that goes on only when this one has complained finds nothing to do.
    for (int other = threadIdx.x; other < p.atoms; other += LIST_THREADS) check_position(p, other);
    Everyone all = wrap_all(p);
    if (threadIdx.x == 0) found = 0;
    __syncthreads();
    int mine = 0;
    try_all(p, all, atom, [&mine](Listed) { mine++; });
    if (mine > 0) atomicAdd(&found, mine);
    __syncthreads();
    if (threadIdx.x == 0) p.found[atom] = found;
    if (threadIdx.x < 3) p.images[3 * atom + threadIdx.x] = all.images[3 * atom + threadIdx.x];
}

// One block an atom: its row, in order, and its position, which the list is of; says so when the list has not enough room.
extern "C" __global__ void few_fill(Parameters p)
{
    __shared__ Listed room[LIST_ROOM];
    __shared__ long long sums[LIST_THREADS][2];
    __shared__ int found;
    if (!due_for_block(p)) return;
    Everyone all = wrap_all(p);
    int atom = blockIdx.x;
    // Pairs of the atoms before this one, and of all.
    long long before = 0, total = 0;
    for (int other = threadIdx.x; other < p.atoms; other += LIST_THREADS) {
        if (other < atom) before += p.found[other];
        total += p.found[other];
    }
    sums[threadIdx.x][0] = before;
    sums[threadIdx.x][1] = total;
    if (threadIdx.x == 0) found = 0;
    __syncthreads();
    for (int width = LIST_THREADS / 2; width > 0; width >>= 1) {
        if (threadIdx.x < width)
            for (int k = 0; k < 2; k++) sums[threadIdx.x][k] += sums[threadIdx.x + width][k];
        __syncthreads();
    }
    before = sums[0][0];
    total = sums[0][1];
    bool fits = total <= p.capacity;
    if (threadIdx.x == 0) {
        p.rows[atom] = (unsigned)before;
        if (atom == 0) {
            p.rows[p.atoms] = (unsigned)total;
            p.control->needed = total;
            if (!fits) p.control->status = STATUS_CAPACITY;
        }
    }
    if (!fits) return;
    // As they are found, where there is room, or else in the memory of the pairs inside the cutoff, which are made anew afterwards.
    int count = p.found[atom];
    Listed* row = count <= LIST_ROOM ? room : (Listed*)p.pairs + before;
    try_all(p, all, atom, [row](Listed pair) { row[atomicAdd(&found, 1)] = pair; });
    __syncthreads();
    for (int k = threadIdx.x; k < count; k += LIST_THREADS) {
        Listed pair = row[k];
        int rank = 0;
        for (int other = 0; other < count; other++) rank += row[other] < pair;
        p.entries[before + rank] = pair;
    }
    if (threadIdx.x < 3) p.reference[3 * atom + threadIdx.x] = p.positions[3 * atom + threadIdx.x];
}
