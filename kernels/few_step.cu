// Both ends of a step of few atoms, each as one kernel.
#include "cluster.cuh"

// The whole beginning of a step, and whether the list is due. One block.
extern "C" __global__ void __launch_bounds__(1024) few_begin(Parameters p, unsigned long long rebuild)
{
    if (p.control->status == 0) {
        begin(p);
#if LANGEVIN
        __syncthreads();
        finish_bath(p);
#endif
    }
    __syncthreads();
    if (threadIdx.x == 0) set_conditional(rebuild, p.control->rebuild != 0 && p.control->status == 0);
}

// The whole end of a step: forces, second half kick, counting. One cluster.
extern "C" __global__ void CLUSTERED __launch_bounds__(512) few_end(Parameters p, unsigned long long again)
{
    int status = p.control->status;
    // Everybody has looked before anybody complains.
    cluster_barrier();
    if (status == 0)
        for (int atom = warp_index(); atom < p.atoms; atom += CLUSTER * blockDim.x / 32) {
            collect(p, atom);
            if (warp_lane() == 0) kick(p, atom);
        }
    cluster_barrier();
    if (cluster_rank() == 0) end(p, 1, again);
}
