/* What a fuzzer is: libFuzzer calls fuzz's LLVMFuzzerTestOneInput with bytes of its own making and
 * watches for crashes, leaks, undefined behaviour, and memory or time out of proportion.
 *
 * A finding stays: its input goes into tests/fuzz/corpus/<name>, from which every run starts.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
