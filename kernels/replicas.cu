// Many systems side by side: what is done system by system. Their atoms stand behind each other in all arrays, and no pair
// crosses from one system to another, so the network does not know of them.
//
// A system is seen through Parameters of its own, whose arrays begin at its first atom and whose control block is its own:
// what moves one system moves each of many, to the same bits. A block has one system, or a warp one atom of it. Sums go over
// a system's own atoms in an order that their number decides, so whoever stands beside it changes no bit.
//
// The first control block is that of all: its step is the one that is being taken, and its status says only that a list
// needs more room. A system whose own status is not good moves no more and has no pairs.
#include "guard.cuh"

// System s as if it were alone.
__device__ inline Parameters alone(const Parameters& p, int s)
{
    const Replica* replica = p.replicas + s;
    long long first = replica->first;
    Parameters own = p;
    own.control = p.control + 1 + s;
    own.samples = p.samples + (long long)s * p.samples_capacity;
    own.contacts = p.contacts + (long long)s * p.elements * p.elements;
    own.partials = p.partials + 5 * s;
    own.positions += 3 * first;
    own.velocities += 3 * first;
    own.forces += 3 * first;
    own.reference += 3 * first;
    own.masses += first;
    own.half_kick += first;
    own.species += first;
    own.place += first;
    own.rows += first;
    own.found += first;
    own.images += 3 * first;
    own.energies += first;
    own.repulsion += first;
    for (int k = 0; k < 9; k++) {
        own.cell[k] = replica->cell[k];
        own.inverse[k] = replica->inverse[k];
    }
    for (int k = 0; k < 3; k++) {
        own.heights[k] = replica->heights[k];
        own.periodic[k] = replica->periodic[k];
    }
    own.temperature = replica->temperature;
    own.final_temperature = replica->final_temperature;
    own.total_mass = replica->total_mass;
    own.lowest = replica->lowest;
    own.highest = replica->highest;
    own.seed[0] = replica->seed[0];
    own.seed[1] = replica->seed[1];
    own.atoms = replica->atoms;
    return own;
}

// Raises a system's flag when its list no longer holds for positions that the host has set. One block a system.
extern "C" __global__ void replica_moved(Parameters p)
{
    Parameters own = alone(p, blockIdx.x);
    for (int atom = threadIdx.x; atom < own.atoms; atom += blockDim.x) check_moved(own, atom);
}

// The first part of a step, up to the forces. One block a system.
extern "C" __global__ void replica_begin(Parameters p)
{
    if (p.control->status != 0) return;
    Parameters own = alone(p, blockIdx.x);
    int status = own.control->status;
    if (status != 0) {
        // The end of a step must not go on with what failed in a step before.
        if (status == STATUS_FAST && threadIdx.x == 0) own.control->status = STATUS_STOPPED;
        return;
    }
    begin(own, 0, 1);
#if LANGEVIN
    __syncthreads();
    finish_bath(own, 0, 1);
#endif
    __syncthreads();
    if (threadIdx.x == 0 && own.control->rebuild != 0) p.control->rebuild = 1;
}

// Counts the step that is being taken and tells the graph whether any list is to be made, and whether another step is to
// follow. One thread.
extern "C" __global__ void replica_decide(Parameters p, unsigned long long rebuild, unsigned long long again)
{
    Control* control = p.control;
    bool good = control->status == 0;
    set_conditional(rebuild, good && control->rebuild != 0);
    control->rebuild = 0;
    if (good) control->step += 1;
    set_conditional(again, good && control->step < control->target);
}

// Goes through the translations that bring atom j within range of atom i, in rising order.
template <class Take> __device__ inline void translations(const Parameters& own, int i, int j, Take take)
{
    int low[3] = {0, 0, 0}, high[3] = {0, 0, 0};
    if (own.periodic[0] || own.periodic[1] || own.periodic[2]) {
        double3 r = pair_vector(own, i, j, 0, 0, 0);
        for (int k = 0; k < 3; k++) {
            if (!own.periodic[k]) continue;
            double at = r.x * own.inverse[k] + r.y * own.inverse[3 + k] + r.z * own.inverse[6 + k];
            // Far above rounding and far below any skin.
            double reach = own.range / own.heights[k] * (1.0 + 1e-9) + 1e-9;
            low[k] = (int)ceil(-at - reach);
            high[k] = (int)floor(reach - at);
        }
    }
    double range2 = own.range * own.range;
    for (int x = low[0]; x <= high[0]; x++)
        for (int y = low[1]; y <= high[1]; y++)
            for (int z = low[2]; z <= high[2]; z++) {
                if (i == j && x == 0 && y == 0 && z == 0) continue;
                double3 r = pair_vector(own, i, j, x, y, z);
                if (norm2(r.x, r.y, r.z) < range2) take(x, y, z);
            }
}

// The rows of a list that is due, by a look at every other atom: systems are small. The list is the one that the CPU makes,
// entry by entry. One warp an atom.
extern "C" __global__ void replica_rows(Parameters p)
{
    int row = warp_index(), lane = warp_lane(), status = p.control->status;
    if (row >= p.atoms || (status != 0 && status != STATUS_CAPACITY)) return;
    int s = p.system_of[row];
    Parameters own = alone(p, s);
    int flag = own.control->rebuild, atom = row - p.replicas[s].first, room = p.replicas[s].room;
    int failed = own.control->status;
    if (flag == 0 || (failed != 0 && failed != STATUS_POSITION)) return;
    // A list that only moves is that of the positions for which it was made.
    if (flag == 2) own.positions = own.reference;
    const double* x = own.positions + 3 * atom;
    // Infinity and NaN both fail.
    if (!(fabs(x[0]) < 1e9 && fabs(x[1]) < 1e9 && fabs(x[2]) < 1e9)) {
        if (lane == 0) {
            fail(own.control, STATUS_POSITION, atom);
            own.found[atom] = 0;
        }
        return;
    }
    Listed* to = p.entries + own.rows[atom];
    double inside[3];
    int image[3], found = 0;
    wrapped(own, atom, inside, image);
    for (int first = 0; first < own.atoms; first += 32) {
        int other = first + lane, mine = 0;
        const double* y = own.positions + 3 * min(other, own.atoms - 1);
        bool sound = other < own.atoms && fabs(y[0]) < 1e9 && fabs(y[1]) < 1e9 && fabs(y[2]) < 1e9;
        if (sound) translations(own, atom, other, [&](int, int, int) { mine++; });
        // The lanes' numbers are added bit by bit; mostly there is one image or none.
        int place = found;
        for (int bit = 0; __ballot_sync(FULL, mine >> bit != 0) != 0; bit++) {
            unsigned all = __ballot_sync(FULL, (mine >> bit & 1) != 0);
            place += __popc(all & ((1u << lane) - 1)) << bit;
            found += __popc(all) << bit;
        }
        if (mine > 0) {
            int theirs[3];
            wrapped(own, other, inside, theirs);
            translations(own, atom, other, [&](int x, int y, int z) {
                if (place < room)
                    to[place] = listed(other, x - image[0] + theirs[0], y - image[1] + theirs[1], z - image[2] + theirs[2]);
                place++;
            });
        }
    }
    if (flag == 1 && lane < 3) own.reference[3 * atom + lane] = x[lane];
    if (lane != 0) return;
    for (int k = 0; k < 3; k++) own.images[3 * atom + k] = image[k];
    own.found[atom] = min(found, room);
    if (found > room) {
        atomicMax(&own.control->needed, (long long)found);
        atomicMax(&p.control->status, STATUS_CAPACITY);
    }
}

// One warp an atom: where each of its pairs stands in the neighbour's row.
extern "C" __global__ void replica_reverse(Parameters p)
{
    int row = warp_index();
    if (row >= p.atoms || p.control->status != 0) return;
    int s = p.system_of[row];
    Parameters own = alone(p, s);
    if (own.control->rebuild == 0 || own.control->status != 0) return;
    int atom = row - p.replicas[s].first;
    for (unsigned e = own.rows[atom] + warp_lane(), end = row_end(own, atom); e < end; e += 32) {
        Listed pair = p.entries[e], wanted = other_end(pair, atom);
        unsigned low = own.rows[neighbor_of(pair)], high = row_end(own, neighbor_of(pair));
        while (low < high) {
            unsigned middle = low + (high - low) / 2;
            if (p.entries[middle] < wanted) low = middle + 1;
            else high = middle;
        }
        p.reverse[e] = low;
    }
}

// One warp an atom: its pairs inside the cutoff. A system that failed in this step is looked at to the end, so that the
// lowest atom is found; one that failed before has none.
extern "C" __global__ void replica_pairs(Parameters p)
{
    int row = warp_index();
    if (row >= p.atoms || p.control->status != 0) return;
    int s = p.system_of[row];
    Parameters own = alone(p, s);
    Control* control = own.control;
    int atom = row - p.replicas[s].first, status = control->status, count = 0;
    unsigned begin = own.rows[atom];
    if (status == 0 || (status == STATUS_OVERLAP && control->step + 1 >= p.control->step))
        count = find_row(own, control, control, &control->close, atom, begin, row_end(own, atom), p.pairs + begin);
    if (warp_lane() == 0) p.inside[row] = count;
}

// One warp an atom.
extern "C" __global__ void replica_forces(Parameters p)
{
    int row = warp_index();
    if (row >= p.atoms || p.control->status != 0) return;
    int s = p.system_of[row];
    Parameters own = alone(p, s);
    if (own.control->status != 0) return;
    collect(own, row - p.replicas[s].first, p.inside[row]);
}

// The rest of a step: the second half kick, sums, samples. One block a system.
extern "C" __global__ void replica_end(Parameters p)
{
    if (p.control->status != 0) return;
    Parameters own = alone(p, blockIdx.x);
    int status = own.control->status;
    // Everybody has looked before an atom is found too fast.
    __syncthreads();
    if (status != 0) return;
    for (int atom = threadIdx.x; atom < own.atoms; atom += blockDim.x)
        kick(own, atom, vector_of(own.velocities, atom), own.half_kick[atom], vector_of(own.forces, atom));
    __syncthreads();
    end(own, 1);
    if (own.control->status != STATUS_FAST) return;
    // What is said about the end of a system must be summed up now: from the next step on it has no pairs.
    double network, full_step;
    observe_all(own, network, full_step);
    if (threadIdx.x == 0) own.control->network = network;
}

// Sums for the host, and the end of a rebuild outside a step. One block a system.
extern "C" __global__ void replica_observe(Parameters p)
{
    if (p.control->status == 0) settle(alone(p, blockIdx.x));
}
