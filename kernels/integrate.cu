// Moving atoms: velocity Verlet and Langevin dynamics as one splitting (BAOAB), all in float64.
//
// One thread an atom, at most 128 blocks of 256 threads which stride over the atoms: blocks' sums are few, and which
// atoms they are of depends on N alone.
#include "guard.cuh"

// Ten rounds of Philox4x32 (Salmon, Moraes, Dror & Shaw, SC11).
__device__ inline uint4 philox4x32(uint4 c, unsigned key0, unsigned key1)
{
    for (int round = 0; round < 10; round++) {
        unsigned long long a = 0xD2511F53ull * c.x, b = 0xCD9E8D57ull * c.z;
        c = make_uint4((unsigned)(b >> 32) ^ c.y ^ key0, (unsigned)b, (unsigned)(a >> 32) ^ c.w ^ key1, (unsigned)a);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// Three standard normal deviates of an atom at a step: the integers are the CPU's, the last bits of logarithm, sine and
// cosine the device's. The stream is that of Langevin's random forces.
__device__ inline double3 normal3(const Parameters& p, long long step, unsigned atom)
{
    const unsigned LANGEVIN_STREAM = 2;
    uint4 bits = philox4x32(make_uint4(atom, (unsigned)step, (unsigned)(step >> 32), LANGEVIN_STREAM), p.seed[0], p.seed[1]);
    const double scale = 1.0 / 4294967296.0, tau = 6.283185307179586476925286766559;
    double u = ((double)bits.x + 0.5) * scale, v = ((double)bits.y + 0.5) * scale;
    double s = ((double)bits.z + 0.5) * scale, t = ((double)bits.w + 0.5) * scale;
    double radius = sqrt(-2.0 * log(u));
    return make_double3(radius * cos(tau * v), radius * sin(tau * v), sqrt(-2.0 * log(s)) * cos(tau * t));
}

// Written so that a position that is no number counts as moved.
__device__ inline void check_moved(const Parameters& p, int atom)
{
    const double *x = p.positions + 3 * atom, *old = p.reference + 3 * atom;
    if (!(norm2(x[0] - old[0], x[1] - old[1], x[2] - old[2]) <= p.half_skin2)) p.control->rebuild = 1;
}

// Raises the flag when the list no longer holds for positions that the host has set.
extern "C" __global__ void moved(Parameters p)
{
    for (int atom = blockIdx.x * blockDim.x + threadIdx.x; atom < p.atoms; atom += gridDim.x * blockDim.x)
        check_moved(p, atom);
}

// B A (O) A: half a kick and both half drifts; with a heat bath up to the bath, with the sums that it needs
// (kinetic energy before it, momentum after it) left by blocks in partials[block][0..4]. This block is one of `blocks`. `noise`: the
// bath's random numbers, [N][3], if they have been made before.
__device__ inline void begin(const Parameters& p, int block, int blocks, const double* noise = nullptr)
{
#if LANGEVIN
    long long step = p.control->step + 1;
    double bath = p.final_temperature;
    if (step < p.ramp_steps) {
        double part = (double)step / (double)p.ramp_steps;
        bath = p.temperature + (p.final_temperature - p.temperature) * part;
    }
    double kt = p.boltzmann * bath;
    double before = 0, px = 0, py = 0, pz = 0;
#endif
    for (int atom = block * blockDim.x + threadIdx.x; atom < p.atoms; atom += blocks * blockDim.x) {
        double *x = p.positions + 3 * atom, *v = p.velocities + 3 * atom;
        const double* f = p.forces + 3 * atom;
        double half = p.half_kick[atom];
        for (int c = 0; c < 3; c++) {
            v[c] += f[c] * half;
            x[c] += v[c] * p.half_step;
        }
#if LANGEVIN
        double m = p.masses[atom];
        before += m * norm2(v[0], v[1], v[2]);
        double width = p.c2 * sqrt(kt / (m * p.mass_velocity2));
        double3 xi = noise ? vector_of(noise, atom) : normal3(p, step, atom);
        v[0] = v[0] * p.c1 + xi.x * width;
        v[1] = v[1] * p.c1 + xi.y * width;
        v[2] = v[2] * p.c1 + xi.z * width;
        px += m * v[0];
        py += m * v[1];
        pz += m * v[2];
#else
        for (int c = 0; c < 3; c++) x[c] += v[c] * p.half_step;
        check_moved(p, atom);
#endif
    }
#if LANGEVIN
    double sums[4] = {before, px, py, pz};
    block_sums<4>(sums);
    if (threadIdx.x == 0)
        for (int k = 0; k < 4; k++) p.partials[5 * block + k] = sums[k];
#endif
}

// Keeps the end of a step from going on with what failed in a step before. One thread is enough.
__device__ inline void stop_for_good(const Parameters& p, int status)
{
    if (status == STATUS_FAST && blockIdx.x == 0 && threadIdx.x == 0) p.control->status = STATUS_STOPPED;
}

extern "C" __global__ void begin_step(Parameters p)
{
    int status = p.control->status;
    if (status == 0) begin(p, blockIdx.x, gridDim.x);
    else stop_for_good(p, status);
}

#if LANGEVIN
// The sum of what blocks have left at place k, known to all threads of a block, which must have waited for it where it is its own.
__device__ inline double sum_partials(const Parameters& p, int k, int blocks)
{
    return blocks == 1 ? p.partials[k] : block_sum(threadIdx.x < blocks ? p.partials[5 * threadIdx.x + k] : 0.0);
}

// The bath's second half: the motion of the centre of mass is taken out, the kinetic energy that is left goes to
// partials[block][4], and the second half drift follows. As many blocks as `begin` has.
__device__ inline void finish_bath(const Parameters& p, int block, int blocks)
{
    double drift[3] = {0, 0, 0};
    if (p.remove_centre_of_mass) {
        for (int c = 0; c < 3; c++)
            drift[c] = sum_partials(p, 1 + c, blocks) / p.total_mass;
    }
    double after = 0;
    for (int atom = block * blockDim.x + threadIdx.x; atom < p.atoms; atom += blocks * blockDim.x) {
        double *x = p.positions + 3 * atom, *v = p.velocities + 3 * atom;
        for (int c = 0; c < 3; c++) v[c] -= drift[c];
        after += p.masses[atom] * norm2(v[0], v[1], v[2]);
        for (int c = 0; c < 3; c++) x[c] += v[c] * p.half_step;
        check_moved(p, atom);
    }
    after = block_sum(after);
    if (threadIdx.x == 0) p.partials[5 * block + 4] = after;
}

extern "C" __global__ void bath(Parameters p)
{
    if (p.control->status == 0) finish_bath(p, blockIdx.x, gridDim.x);
}
#endif

// B: the second half kick of an atom of velocity v. Long before an energy overflows, atoms fly.
__device__ inline void kick(const Parameters& p, int atom, double3 v, double half, double3 f)
{
    v = make_double3(v.x + f.x * half, v.y + f.y * half, v.z + f.z * half);
    p.velocities[3 * atom] = v.x;
    p.velocities[3 * atom + 1] = v.y;
    p.velocities[3 * atom + 2] = v.z;
    if (!(norm2(v.x, v.y, v.z) <= p.fastest2)) fail(p.control, STATUS_FAST, atom);
}

// That status, set here, stops no other thread: the lowest atom is found.
extern "C" __global__ void finish_step(Parameters p)
{
    int status = p.control->status;
    if (status != 0 && status != STATUS_FAST) return;
    for (int atom = blockIdx.x * blockDim.x + threadIdx.x; atom < p.atoms; atom += gridDim.x * blockDim.x)
        kick(p, atom, vector_of(p.velocities, atom), p.half_kick[atom], vector_of(p.forces, atom));
}

// Tells the graph whether its rebuild branch is to run. One thread, after all blocks that can raise the flag.
extern "C" __global__ void decide(Parameters p, unsigned long long rebuild)
{
    set_conditional(rebuild, p.control->rebuild != 0 && p.control->status == 0);
}

// Sums over all atoms: the network's energy, and the kinetic energy of a whole step.
__device__ inline void observe_all(const Parameters& p, double& network, double& full_step)
{
    double sums[2] = {0, 0};
    for (int atom = threadIdx.x; atom < p.atoms; atom += blockDim.x) {
        const double* v = p.velocities + 3 * atom;
        sums[0] += (double)p.energies[atom];
#if REPULSION
        sums[0] += p.repulsion[atom];
#endif
        sums[1] += p.masses[atom] * norm2(v[0], v[1], v[2]);
    }
    block_sums<2>(sums);
    network = sums[0];
    full_step = 0.5 * p.mass_velocity2 * sums[1];
}

// The first step after this one with a frame.
__device__ inline long long next_frame(const Parameters& p, long long step)
{
    long long next = 0;
    for (int k = 0; k < p.frame_intervals_count; k++) {
        long long interval = p.frame_intervals[k], due = (step / interval + 1) * interval;
        if (k == 0 || due < next) next = due;
    }
    return next;
}

// Writes a frame to where the host will find it. One block; nobody waits for what it writes.
__device__ inline void keep_frame(const Parameters& p, int place)
{
    int n = 3 * p.atoms;
    double* to = p.frames + 3ll * n * place;
    for (int k = threadIdx.x; k < n; k += blockDim.x) {
        to[k] = p.positions[k];
        to[k + n] = p.velocities[k];
        to[k + 2 * n] = p.forces[k];
    }
}

// Closes a step: counts it, adds up the bath's heat, keeps a sample and a frame when they are due, and tells all threads
// whether another step is to follow. One block; `blocks` is the grid of `begin`.
__device__ inline bool end(const Parameters& p, int blocks)
{
    Control* control = p.control;
    int status = control->status;
    long long step = control->step + 1;
    bool more = step < control->target;
    bool logged = is_multiple(step, p.log_interval), framed = step == control->next_frame;
    int place = control->frames;
#if WATCH
    bool close = control->close == 1 && (status == 0 || status == STATUS_FAST), outside = close;
    // Of few atoms every block closes the step, for itself.
    if (close && (!FEW || blockIdx.x == 0)) complete_contacts(p, step);
#endif
    // Everybody has read before anybody writes.
    __syncthreads();
#if WATCH
    if (close && threadIdx.x == 0) control->close = 2;
#endif
    if (status != 0) return false;
#if LANGEVIN
    double before = sum_partials(p, 0, blocks), after = sum_partials(p, 4, blocks);
    if (threadIdx.x == 0) {
        double kinetic = 0.5 * p.mass_velocity2 * after;
        control->heat += kinetic - 0.5 * p.mass_velocity2 * before;
        control->kinetic = kinetic;
    }
#endif
    if (logged || framed) {
        double network, full_step;
        observe_all(p, network, full_step);
        if (framed && place < p.frames_capacity) keep_frame(p, place);
#if WATCH
        outside = outside || (logged && !(network >= p.lowest && network <= p.highest));
#endif
        if (threadIdx.x == 0) {
#if !LANGEVIN
            control->kinetic = full_step;
#endif
            Sample sample = {step, control->rebuilds + (control->rebuild == 1), control->kinetic, network, full_step,
                             control->heat, logged, framed};
            if (control->samples < p.samples_capacity) p.samples[control->samples] = sample;
            control->samples += 1;
            if (framed) {
                control->frames = place + 1;
                control->next_frame = next_frame(p, step);
            }
        }
    }
    bool leaves = false;
#if WATCH
    leaves = outside && p.stop_outside;
#endif
    if (threadIdx.x == 0) {
        control->step = step;
        control->rebuilds += control->rebuild == 1;
        control->rebuild = 0;
        if (leaves) control->status = STATUS_OUTSIDE;
    }
    return more && !leaves;
}

// Tells the graph whether it goes round again.
extern "C" __global__ void end_step(Parameters p, int blocks, unsigned long long again)
{
    bool more = end(p, blocks);
    if (threadIdx.x == 0) set_conditional(again, more);
}

// The same sums for the host, and the end of a rebuild outside a step. One block.
__device__ inline void settle(const Parameters& p)
{
    double network, full_step;
    observe_all(p, network, full_step);
#if WATCH
    bool close = p.control->close == 1 && p.control->status == 0;
    if (close) complete_contacts(p, p.control->step);
    __syncthreads();
    if (close && threadIdx.x == 0) p.control->close = 2;
#endif
    if (threadIdx.x == 0 && p.control->status == 0) {
        p.control->network = network;
        p.control->full_step = full_step;
        p.control->rebuilds += p.control->rebuild == 1;
        p.control->rebuild = 0;
    }
}

// One block of 1024 threads.
extern "C" __global__ void observe(Parameters p) { settle(p); }
