// Both ends of a step of few atoms, each as one kernel. In a graph that repeats steps the end of a step is the beginning of
// the next one too; such a graph has two conditions, each a WHILE node's, one inside of the other:
//   again    another step is to follow: makes the list where it is due, then everything after it
//   steady   and the list holds: everything after it
#include "guard.cuh"

// The whole beginning of a step, which raises the flag where the list is due. One block.
__device__ inline void begin_whole(const Parameters& p)
{
    begin(p, 0, 1);
#if LANGEVIN
    __syncthreads();
    finish_bath(p, 0, 1);
#endif
    __syncthreads();
}

// The beginning of a step, unless the end of the one before has begun it: then the flag is up. One block.
extern "C" __global__ void __launch_bounds__(PAIR_THREADS) few_begin(Parameters p, unsigned long long steady)
{
    int status = p.control->status, begun = p.control->rebuild;
    // Everybody has looked before anybody writes.
    __syncthreads();
    if (status != 0) stop_for_good(p, status);
    else if (!begun) begin_whole(p);
    // The list is made next. Should that fail, the end of the step says so.
    if (threadIdx.x == 0) set_conditional(steady, 1);
}

// Whether this block is the last one to come here: what all others have written is there for it then. Every thread must call
// it.
__device__ inline bool last_block(Control* control)
{
    __shared__ bool last;
    // Who has not read yet must not find what the last block writes.
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(&control->finished, 1) == (int)gridDim.x - 1;
        if (last) control->finished = 0;
        __threadfence();
    }
    __syncthreads();
    return last;
}

// The force on this block's atom and its second half kick. Lanes of the first warp add up pairs as those of `collect_forces`
// do: to the same bits.
__device__ inline void collect_and_kick(const Parameters& p, int atom, unsigned begin, int count)
{
    __shared__ Push pushes[PAIR_THREADS];
    bool adds = threadIdx.x < 32;
    double3 v = make_double3(0.0, 0.0, 0.0);
    double half = 0.0;
    // On their way while forces are made.
    if (adds) {
        v = vector_of(p.velocities, atom);
        half = p.half_kick[atom];
    }
    Push sum = {0.0, 0.0, 0.0, 0.0};
    for (int first = 0; first < count; first += PAIR_THREADS) {
        int k = first + threadIdx.x;
        if (k < count) pushes[threadIdx.x] = push_of(p, atom, p.pairs[begin + k]);
        __syncthreads();
        for (int n = threadIdx.x; adds && n < min(PAIR_THREADS, count - first); n += 32) sum = add(sum, pushes[n]);
        __syncthreads();
    }
    if (!adds) return;
    double3 f = leave_force(p, atom, sum);
    if (threadIdx.x == 0) kick(p, atom, v, half, f);
}

// The whole end of a step: forces, second half kick, counting; then, with conditions, the beginning of the next one. A block
// an atom; a status that is set here stops no block.
extern "C" __global__ void __launch_bounds__(PAIR_THREADS)
few_end(Parameters p, unsigned long long again, unsigned long long steady)
{
    int atom = blockIdx.x, status = p.control->status, count = p.inside[atom];
    unsigned begin = p.rows[atom];
    if (status == 0 || status == STATUS_FAST) collect_and_kick(p, atom, begin, count);
    if (!last_block(p.control)) return;
    bool more = end(p, 1);
    __syncthreads();
    if (more && steady != 0) begin_whole(p);
    if (threadIdx.x != 0) return;
    if (!more) set_conditional(again, 0);
    if (!more || p.control->rebuild != 0) set_conditional(steady, 0);
}
