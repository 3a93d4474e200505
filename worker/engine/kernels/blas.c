#include "worker/engine/kernels/blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/panic.h"

#define LIBRARY "libopenblas.so.0"

static struct {
    pthread_once_t once;
    struct blas functions;
    int result;
    struct error err; /* when result is not STATUS_OK */
} state = {.once = PTHREAD_ONCE_INIT};

/* The best kernels that the processor can run, by OpenBLAS' name for them; NULL leaves the choice
 * to OpenBLAS. Its names for newer ones have the same sgemm. Old AMD processors it knows by family
 * and gives 3DNow, which a virtual machine of that family (QEMU's standard one) does not have. */
static const char *core_type(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
        return "SkylakeX";
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return "Haswell";
    }
    if (__builtin_cpu_supports("sse3") && !__builtin_cpu_supports("ssse3")) {
        return "Prescott";
    }
#endif
    return NULL;
}

static void *find(void *library, const char *name)
{
    void *function = dlsym(library, name);
    if (function == NULL && state.result == STATUS_OK) {
        state.result = ERROR(&state.err, STATUS_UNSUPPORTED, "%s has no %s", LIBRARY, name);
    }
    return function;
}

static void load(void)
{
    const char *core = core_type();
    if (core != NULL) {
        (void)setenv("OPENBLAS_CORETYPE", core, 0);
    }
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        state.result = ERROR(&state.err, STATUS_NOT_FOUND,
                             "%s; install OpenBLAS (Debian: libopenblas0)", dlerror());
        return;
    }
    /* C has no conversion from an object's address to a function's; POSIX promises that it works
     * this way. */
    *(void **)&state.functions.sgemm = find(library, "cblas_sgemm");
    *(void **)&state.functions.set_num_threads = find(library, "openblas_set_num_threads");
    *(void **)&state.functions.get_config = find(library, "openblas_get_config");
    *(void **)&state.functions.get_corename = find(library, "openblas_get_corename");
}

int blas_load(struct error *err)
{
    (void)pthread_once(&state.once, load);
    if (state.result < 0 && err != NULL) {
        *err = state.err;
    }
    return state.result;
}

const struct blas *blas(void)
{
    ASSERT(state.functions.sgemm != NULL);
    return &state.functions;
}
