// The list of few atoms: every warp tries all atoms and all images that can be near for one atom.
#include "neighbors.cu"

// Warps of a block; the host has the same number.
#define LIST_WARPS 4

// All atoms of the system, in a block's shared memory.
struct Everyone {
    double* at;  // [N][3], fractional coordinates inside the cell
    int* images; // [N][3]
};

// Brings them there. The block must wait before it uses them.
__device__ inline Everyone wrap_all(const Parameters& p)
{
    DYNAMIC_SHARED(double, wrapped_all);
    Everyone all = {wrapped_all, (int*)(wrapped_all + 3 * p.atoms)};
    for (int atom = threadIdx.x; atom < p.atoms; atom += blockDim.x) wrapped(p, atom, all.at + 3 * atom, all.images + 3 * atom);
    return all;
}

// Hands every pair of an atom to `take(place, listed)` and returns their number. Every lane of a warp must call it.
template <class Take> __device__ inline int try_all(const Parameters& p, const Everyone& all, int atom, Take take)
{
    // Far above the rounding of fractional coordinates.
    double search = p.range * (1.0 + 1e-6) + 1e-6;
    int found = 0;
    for (int first = 0; first < p.atoms; first += 32) {
        int other = first + warp_lane(), from[3] = {0, 0, 0}, count[3] = {1, 1, 1}, images = other < p.atoms;
        for (int k = 0; images > 0 && k < 3; k++) {
            if (!p.periodic[k]) continue;
            double apart = all.at[3 * other + k] - all.at[3 * atom + k], reach = search / p.heights[k];
            from[k] = (int)ceil(-reach - apart);
            count[k] = max((int)floor(reach - apart) - from[k] + 1, 0);
            images *= count[k];
        }
        for (int n = 0; __ballot_sync(FULL, n < images) != 0; n++) {
            bool in = false;
            Listed pair = 0;
            if (n < images) {
                int x = from[0] + n / count[2] / count[1], y = from[1] + n / count[2] % count[1], z = from[2] + n % count[2];
                pair = listed(other, x, y, z);
                bool itself = other == atom && x == 0 && y == 0 && z == 0;
                in = !itself && in_range(p, all.images, atom, pair);
            }
            unsigned lanes = __ballot_sync(FULL, in);
            if (in) take(found + __popc(lanes & ((1u << warp_lane()) - 1)), pair);
            found += __popc(lanes);
        }
    }
    return found;
}

// How many pairs each row has.
extern "C" __global__ void few_count(Parameters p)
{
    if (!due_for_block(p)) return;
    for (int atom = threadIdx.x; atom < p.atoms; atom += blockDim.x) check_position(p, atom);
    Everyone all = wrap_all(p);
    __syncthreads();
    int atom = warp_index();
    if (atom >= p.atoms) return;
    int found = try_all(p, all, atom, [](int, Listed) {});
    if (warp_lane() == 0) p.found[atom] = found;
    if (warp_lane() < 3) p.images[3 * atom + warp_lane()] = all.images[3 * atom + warp_lane()];
}

// The rows, in order, and the positions that they are of; says so when the list has not enough room.
extern "C" __global__ void few_fill(Parameters p)
{
    __shared__ Listed room[LIST_WARPS][2 * ROW_ROOM];
    __shared__ long long sums[LIST_WARPS * 32][2];
    if (!due_for_block(p)) return;
    Everyone all = wrap_all(p);
    int first = blockIdx.x * LIST_WARPS, warp = threadIdx.x / 32, lane = warp_lane();
    // Pairs of the atoms before this block's, and of all atoms.
    long long before = 0, total = 0;
    for (int atom = threadIdx.x; atom < p.atoms; atom += blockDim.x) {
        if (atom < first) before += p.found[atom];
        total += p.found[atom];
    }
    sums[threadIdx.x][0] = before;
    sums[threadIdx.x][1] = total;
    __syncthreads();
    for (int width = LIST_WARPS * 16; width > 0; width >>= 1) {
        if (threadIdx.x < width)
            for (int k = 0; k < 2; k++) sums[threadIdx.x][k] += sums[threadIdx.x + width][k];
        __syncthreads();
    }
    before = sums[0][0];
    total = sums[0][1];
    bool fits = total <= p.capacity;
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        p.rows[p.atoms] = (unsigned)total;
        p.control->needed = total;
        if (!fits) p.control->status = STATUS_CAPACITY;
    }
    int atom = first + warp;
    if (!fits || atom >= p.atoms) return;
    for (int k = first; k < atom; k++) before += p.found[k];
    if (lane == 0) p.rows[atom] = (unsigned)before;
    // In the order in which they are found, in the memory of the pairs inside the cutoff, which are made anew afterwards.
    Listed* row = (Listed*)p.pairs + before;
    int count = try_all(p, all, atom, [row](int place, Listed pair) { row[place] = pair; });
    __syncwarp();
    sort_row(row, p.entries + before, count, room[warp]);
    if (lane < 3) p.reference[3 * atom + lane] = p.positions[3 * atom + lane];
}
