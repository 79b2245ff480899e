// Sums 256 values a block; counts threads with a vote, an atomic and a barrier that reduces.
extern "C" __global__ void reduce(const float *in, float *out)
{
    extern __shared__ float sums[];
    __shared__ unsigned arrived;
    if (threadIdx.x == 0)
        arrived = 0;
    sums[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half >>= 1) {
        if (threadIdx.x < half)
            sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    atomicAdd(&arrived, 1u);
    __syncthreads();
    float sum = sums[0];
    for (int distance = 16; distance; distance >>= 1)
        sum += __shfl_down_sync(0xffffffff, sum, distance);
    unsigned positive = __ballot_sync(0xffffffff, sum > 1.f);
    int third = __syncthreads_or(threadIdx.x == 3);
    if (threadIdx.x == 0)
        out[blockIdx.x] = sum + __popc(positive) + arrived + third;
}
