// Memory of CUDA devices and of the host, and TF32. Nothing here names a symbol of libtorch's CUDA half, which is opened
// while the program runs: its allocator is reached through the base class, in libc10.
#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <mutex>

#include "shim.h"

namespace {

constexpr auto AGGREGATE = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

// Pages for batches, which come and go as long as a run does. In the heap they would leave holes between a step's tensors, which
// nothing else fits; they are used again, because the system clears new ones one by one.
class Pages {
public:
    static constexpr size_t LEAST_BYTES = 1 << 20;

    void *take(size_t bytes) {
        {
            std::lock_guard<std::mutex> held(lock);
            const auto found = std::find_if(idle.begin(), idle.end(), [&](const Part &part) { return part.bytes == bytes; });
            if (found != idle.end()) {
                void *at = found->at;
                idle.erase(found);
                return at;
            }
        }
        void *at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return at == MAP_FAILED ? nullptr : at;
    }

    void give(void *at, size_t bytes) {
        Part last{at, bytes};
        {
            std::lock_guard<std::mutex> held(lock);
            idle.push_back(last);
            if (idle.size() <= MOST_IDLE) return;
            last = idle.front();
            idle.erase(idle.begin());
        }
        munmap(last.at, last.bytes);
    }

private:
    static constexpr size_t MOST_IDLE = 2;
    struct Part {
        void *at;
        size_t bytes;
    };
    std::mutex lock;
    std::vector<Part> idle;
};

Pages &pages() {
    static Pages &all = *new Pages;  // Never destroyed: a tensor may go after everything else.
    return all;
}

at::Tensor host_buffer(int64_t len, bool pinned) {
    const auto options = at::TensorOptions().dtype(at::kFloat);
    const size_t bytes = static_cast<size_t>(len) * sizeof(float);
    if (!pinned && bytes >= Pages::LEAST_BYTES)
        if (void *at = pages().take(bytes))
            return at::from_blob(at, {len}, [bytes](void *at) { pages().give(at, bytes); }, options);
    return at::empty({len}, options.pinned_memory(pinned));
}

}  // namespace

extern "C" {

// Bytes in tensors now and at most, and bytes held from the device now and at most.
int dbp_device_memory(int index, uint64_t *figures, char *error, size_t capacity) {
    return guarded(error, capacity, [&] {
        const auto stats = c10::getDeviceAllocator(c10::DeviceType::CUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(index));
        figures[0] = static_cast<uint64_t>(stats.allocated_bytes[AGGREGATE].current);
        figures[1] = static_cast<uint64_t>(stats.allocated_bytes[AGGREGATE].peak);
        figures[2] = static_cast<uint64_t>(stats.reserved_bytes[AGGREGATE].current);
        figures[3] = static_cast<uint64_t>(stats.reserved_bytes[AGGREGATE].peak);
    });
}

// Bytes that the device has free, and all that it has.
int dbp_device_room(int index, uint64_t *figures, char *error, size_t capacity) {
    return guarded(error, capacity, [&] {
        const auto room = c10::getDeviceAllocator(c10::DeviceType::CUDA)->getMemoryInfo(static_cast<c10::DeviceIndex>(index));
        figures[0] = room.first;
        figures[1] = room.second;
    });
}

// The largest use counts from now.
int dbp_reset_device_peak(int index, char *error, size_t capacity) {
    return guarded(error, capacity, [&] {
        c10::getDeviceAllocator(c10::DeviceType::CUDA)->resetPeakStats(static_cast<c10::DeviceIndex>(index));
    });
}

// Zeros in the host's memory, page-locked or not. Not by at::zeros, which would start threads beside those that fill it.
int dbp_host_buffer(int64_t len, int pinned, at::Tensor **made, char *error, size_t capacity) {
    return guarded(error, capacity, [&] {
        auto buffer = host_buffer(len, pinned != 0);
        std::memset(buffer.data_ptr(), 0, buffer.nbytes());
        *made = new at::Tensor(std::move(buffer));
    });
}

// Whether products and convolutions of float32 on CUDA may round their inputs to TF32; libtorch's own choice differs between the two.
int dbp_allow_tf32(int allowed, char *error, size_t capacity) {
    return guarded(error, capacity, [&] {
        at::globalContext().setAllowTF32CuBLAS(allowed != 0);
        at::globalContext().setAllowTF32CuDNN(allowed != 0);
    });
}

// What was set: 0 neither, 1 products, 2 convolutions, 3 both.
int dbp_tf32_allowed(int *allowed, char *error, size_t capacity) {
    return guarded(error, capacity, [&] {
        *allowed = (at::globalContext().allowTF32CuBLAS() ? 1 : 0) + (at::globalContext().allowTF32CuDNN() ? 2 : 0);
    });
}
}
