// Both ends of a step of few atoms, whose blocks all have the whole system in their shared memory: what the kernels of such steps
// share.
#pragma once
#include "pairs.cu"
#include "integrate.cu"

// What the kernel is to do.
#define ONLY_FORCES 0
#define ONE_STEP 1
#define ALL_STEPS 2 // and begin the next one, until the last one of the launch or until the list is due

// What both ends of a step need must not be kept in registers through all of it, where there are no more than enough of them.
#if FEATURES < 128
#define ASIDE inline
#else
#define ASIDE __noinline__
#endif

// The whole beginning of a step, which raises the flag where the list is due. One block.
__device__ ASIDE void begin_whole(const Parameters& p, const double* noise = nullptr)
{
    begin(p, 0, 1, noise);
#if LANGEVIN
    __syncthreads();
    finish_bath(p, 0, 1);
#endif
    __syncthreads();
}

__device__ ASIDE bool end_whole(const Parameters& p) { return end(p, 1); }

// The beginning of a step, unless it has been begun where the one before ended: then the flag is up. One block.
extern "C" __global__ void __launch_bounds__(FEW_THREADS) few_begin(Parameters p)
{
    int status = p.control->status, begun = p.control->rebuild;
    // Everybody has looked before anybody writes.
    __syncthreads();
    if (status != 0) stop_for_good(p, status);
    else if (!begun) begin_whole(p);
}

// This block's own copy of the system, all of it in shared memory from `memory` on, see src/backend/cuda/few.rs; only the first
// block keeps samples and frames. The block must wait before it uses them.
__device__ inline Parameters& own_copy(const Parameters& p, char* memory)
{
    Parameters& own = *(Parameters*)memory;
    double* at = (double*)(memory + sizeof(Parameters) + sizeof(Control));
    int n = 3 * p.atoms;
    double *masses = at + 3 * n, *half_kick = masses + p.atoms;
    int* images = (int*)(half_kick + p.atoms + 5);
    for (int k = threadIdx.x; k < n; k += FEW_THREADS) {
        at[k] = p.positions[k];
        at[k + n] = p.velocities[k];
        at[k + 2 * n] = p.reference[k];
        images[k] = p.images[k];
    }
    for (int k = threadIdx.x; k < p.atoms; k += FEW_THREADS) {
        masses[k] = p.masses[k];
        half_kick[k] = p.half_kick[k];
    }
    // Of the step that has been begun.
    if (threadIdx.x < 5) half_kick[p.atoms + threadIdx.x] = p.partials[threadIdx.x];
    if (threadIdx.x == 0) {
        own = p;
        own.control = (Control*)(memory + sizeof(Parameters));
        *own.control = *p.control;
        own.positions = at;
        own.velocities = at + n;
        own.reference = at + 2 * n;
        own.masses = masses;
        own.half_kick = half_kick;
        own.partials = half_kick + p.atoms;
        own.images = images;
        if (blockIdx.x != 0) own.samples_capacity = own.frames_capacity = 0;
    }
    return own;
}
