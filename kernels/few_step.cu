// Steps of few atoms: one kernel takes one after the other for as long as the list holds.
//
// All its blocks run at the same time and wait for each other where atoms of other clusters come in: before each exchange of
// messages, before forces are made, and before atoms move. Every block has the whole system in its shared memory and moves
// all atoms, to the same bits, so that moving needs no exchange; the first block brings it back in the end. Results do not
// depend on who is first anywhere.
#include "few.cu"
#include "few_ends.cuh"

// The forces on the cluster's atoms. Blocks take turns with them.
__device__ inline void collect_forces(const Parameters& p, const Parameters& own, const Team& t)
{
    // As many pairs at once as fit where dense layers have their inputs.
    Push* pushes = (Push*)t.wide;
    int most = min(FEW_THREADS, 12 * t.group * FEATURES * (int)sizeof(float) / (int)sizeof(Push));
    for (int local = t.rank; local < t.atoms; local += CLUSTER) {
        int atom = t.first + local, count = t.counts[local];
        const Pair* pairs = t.pairs + t.begins[local];
        Push sum = {0.0, 0.0, 0.0, 0.0};
        for (int first = 0; first < count; first += most) {
            int these = min(most, count - first), k = threadIdx.x;
            if (k < these) pushes[k] = push_of(own, atom, pairs[first + k]);
            __syncthreads();
            for (int n = threadIdx.x; threadIdx.x < 32 && n < these; n += 32) sum = add(sum, pushes[n]);
            __syncthreads();
        }
        if (threadIdx.x < 32) leave_force(p, atom, sum);
    }
}

// Where the host or another kernel looks for them.
__device__ inline void bring_pairs_back(const Parameters& p, const Team& t)
{
    if (t.rank != 0) return;
    for (int local = 0; local < t.atoms; local++) {
        Pair* to = p.pairs + p.rows[t.first + local];
        const Pair* from = t.pairs + t.begins[local];
        for (int k = threadIdx.x; to != from && k < t.counts[local]; k += FEW_THREADS) to[k] = from[k];
        if (threadIdx.x == 0) p.inside[t.first + local] = t.counts[local];
    }
}

// Pairs, network, forces.
__device__ inline void evaluate(const Parameters& p, const Parameters& own, const Network& network, Passing& passing)
{
    find_pairs(p, own, make_team(p, network, 0));
    __syncthreads();
    for (int l = 0; l < network.count; l++) {
        if (l > 0) everyone(network.barrier);
        forward(p, network, l, passing);
    }
    for (int l = network.count - 1; l >= 0; l--) {
        backward_update(p, network, l, passing);
        everyone(network.barrier);
        backward_messages(p, network, l, passing);
    }
    // Who found pairs that must not be has said so long ago, and nobody is in the next step yet.
    if (threadIdx.x == 0) {
        Control* control = p.control;
        int now = own.control->step & 1;
        own.control->status = ((volatile Control*)control)->status;
        own.control->atom = ((volatile Control*)control)->atom;
        if (((volatile Control*)control)->noted[now]) own.control->close = 1;
        if (blockIdx.x == 0) control->noted[1 - now] = 0;
    }
    everyone(network.barrier);
    collect_forces(p, own, make_team(p, network, 0));
    everyone(network.barrier);
}

extern "C" __global__ void CLUSTERED __launch_bounds__(FEW_THREADS, 1)
few_steps(const __grid_constant__ Parameters p, const __grid_constant__ Network network, int what, unsigned long long again)
{
    const Team t = make_team(p, network, 0);
    open_exchange(t.exchange.barriers);
    const Parameters& own = own_copy(p, t.rest);
    // All blocks have their barriers before anybody writes to them, and have read the status before anybody changes it.
    cluster_wait();
    everyone(network.barrier);
    bool more = false, begun = own.control->status == 0, done = begun;
    Passing passing;
    passing.exchanges = 0;
    while (begun) {
        evaluate(p, own, network, passing);
        if (what == ONLY_FORCES) break;
        if (own.control->status == 0)
            for (int atom = threadIdx.x; atom < p.atoms; atom += FEW_THREADS)
                kick(own, atom, vector_of(own.velocities, atom), own.half_kick[atom], vector_of(p.forces, atom));
        __syncthreads();
        more = end_whole(own);
        __syncthreads();
        if (more && what == ALL_STEPS) begin_whole(own);
        begun = more && what == ALL_STEPS && own.control->rebuild == 0;
    }
    if (what == ONLY_FORCES && done) bring_pairs_back(p, make_team(p, network, 0));
    if (blockIdx.x != 0) return;
    __syncthreads();
    for (int k = threadIdx.x; done && k < 3 * p.atoms; k += FEW_THREADS) {
        p.positions[k] = own.positions[k];
        p.velocities[k] = own.velocities[k];
    }
    if (done && threadIdx.x < 5) p.partials[threadIdx.x] = own.partials[threadIdx.x];
    if (threadIdx.x != 0) return;
    if (done) {
        *p.control = *own.control;
        p.control->noted[0] = p.control->noted[1] = 0;
    }
    if (!more) set_conditional(again, 0);
}
