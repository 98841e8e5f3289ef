// Exceptions of libtorch as a message and a return code: none may cross into Rust.
#pragma once

#include <cstring>
#include <exception>

namespace {

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

}  // namespace
