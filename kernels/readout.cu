// The readout's last layer, to one number an atom, and the first step back.
#include "common.cuh"

// e = w·σ(h) + b, and h becomes its gradient, w σ'(h). One warp an atom; h [N][width], width a multiple of 32.
extern "C" __global__ void readout(Parameters p, int width, const float* weight, float bias, float* h)
{
    int row = warp_index(), lane = warp_lane();
    if (p.control->status != 0 || row >= p.atoms) return;
    float sum = 0.0f;
    for (int k = lane; k < width; k += 32) {
        float x = h[(long long)row * width + k], w = weight[k];
        sum = fmaf(w, silu(x), sum);
        h[(long long)row * width + k] = w * silu_slope(x);
    }
    for (int offset = 16; offset > 0; offset >>= 1) sum += __shfl_xor_sync(FULL, sum, offset);
    if (lane == 0) p.energies[atom_of(p, row)] = sum + bias;
}
