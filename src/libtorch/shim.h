// What the shim's files share: lists of tensors, and exceptions as messages.
#pragma once

#include <ATen/ATen.h>

#include <cstring>
#include <exception>
#include <vector>

inline std::vector<at::Tensor> list(at::Tensor *const *tensors, size_t count) {
    std::vector<at::Tensor> out;
    out.reserve(count);
    for (size_t i = 0; i < count; ++i) out.push_back(*tensors[i]);
    return out;
}

// Runs `body`; answers 0, or 1 with a message in `error`.
template <typename Body>
int guarded(char *error, size_t capacity, Body body) {
    const char *what = "unknown C++ exception";
    try {
        body();
        return 0;
    } catch (const std::exception &err) {
        what = err.what();
        std::strncpy(error, what, capacity - 1);
    } catch (...) {
        std::strncpy(error, what, capacity - 1);
    }
    error[capacity - 1] = '\0';
    return 1;
}
