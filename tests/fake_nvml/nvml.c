/* NVML's functions that src/energy/nvml calls, for tests on machines without a GPU.
 *
 * What each answers stands in `nvml.txt` beside the library, read at every call, so that a test changes it while a meter
 * runs and parallel tests share nothing. A line is `key value`; GPUs count from 0:
 *
 *     init 0  count 0  gpus 2  driver 550.54.15    return codes of nvmlInit_v2 and nvmlDeviceGetCount_v2; the machine
 *     0.open 0                                     return code of opening the GPU
 *     0.name …  0.uuid …  0.bus 00000000:65:00.0
 *     0.energy 0  0.energy_mj 5000                 return code, value; likewise power, power_mw and busy, busy_percent
 *     0.limit_mw 400000
 *     sleep_ms 0                                   how long each read of energy or power takes, as when a driver hangs
 *     0.mig 1  0.mig.3 MIG-…                       whether it is split; the UUID of instance 3
 *
 * Source: NVIDIA's documentation of NVML (names, arguments, return codes). Compiled with -DOLD it lacks what drivers
 * before Volta and MIG lack; with -DNO_MIG_UUID, a look-up by UUID knows no instances, as before driver 470.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, GPUS = 8, INSTANCES = 7 };

/* A handle is the address of its place: gpu[i][0] is GPU i, gpu[i][1 + k] its instance k. */
static char gpu[GPUS][1 + INSTANCES];
static int initialized = 0;

typedef struct {
    char bus_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} Pci;

static int lookup(const char *key, char *value, size_t size) {
    Dl_info self;
    char path[4096], line[512];
    if (!dladdr(gpu, &self)) return 0;
    const char *slash = strrchr(self.dli_fname, '/');
    int folder = slash ? (int)(slash - self.dli_fname) + 1 : 0;
    snprintf(path, sizeof path, "%.*snvml.txt", folder, self.dli_fname);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    size_t length = strlen(key);
    int found = 0;
    while (!found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) || line[length] != ' ') continue;
        line[strcspn(line, "\n")] = 0;
        found = snprintf(value, size, "%s", line + length + 1) < (int)size;
    }
    fclose(file);
    return found;
}

static unsigned long long number(const char *key, unsigned long long otherwise) {
    char value[64];
    return lookup(key, value, sizeof value) ? strtoull(value, NULL, 10) : otherwise;
}

static int gpus(void) { return (int)number("gpus", 1); }

/* Which GPU a handle means, and which instance of it, -1 for none. */
static int place(const void *handle, int *instance) {
    long offset = (const char *)handle - &gpu[0][0];
    if (offset < 0 || offset >= (long)sizeof gpu) return -1;
    *instance = (int)(offset % (1 + INSTANCES)) - 1;
    return (int)(offset / (1 + INSTANCES));
}

static const char *key_of(const void *handle, const char *what) {
    static __thread char key[64];
    int instance, i = place(handle, &instance);
    if (instance >= 0) snprintf(key, sizeof key, "instance.%s", what); /* Instances have no figures of their own. */
    else snprintf(key, sizeof key, "%d.%s", i, what);
    return key;
}

static int text(const void *handle, const char *what, char *out, unsigned size) {
    if (!initialized) return UNINITIALIZED;
    return lookup(key_of(handle, what), out, size) ? OK : UNSUPPORTED;
}

static int figure(const void *handle, const char *what, const char *unit, unsigned long long *out) {
    char value[64], valued[32];
    if (!initialized) return UNINITIALIZED;
    for (long left = (long)number("sleep_ms", 0); left > 0; left -= 10) usleep(10000);
    int code = (int)number(key_of(handle, what), OK);
    if (code != OK) return code;
    snprintf(valued, sizeof valued, "%s_%s", what, unit);
    if (!lookup(key_of(handle, valued), value, sizeof value)) return UNSUPPORTED;
    *out = strtoull(value, NULL, 10);
    return OK;
}

static int small_figure(const void *handle, const char *what, const char *unit, unsigned *out) {
    unsigned long long value = 0;
    int code = figure(handle, what, unit, &value);
    *out = (unsigned)value;
    return code;
}

int nvmlInit_v2(void) {
    int code = (int)number("init", OK);
    initialized = code == OK;
    return code;
}

int nvmlShutdown(void) {
    initialized = 0;
    return OK;
}

int nvmlSystemGetDriverVersion(char *out, unsigned size) { return lookup("driver", out, size) ? OK : UNSUPPORTED; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = (unsigned)gpus();
    return initialized ? (int)number("count", OK) : UNINITIALIZED;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (!initialized) return UNINITIALIZED;
    if ((int)index >= gpus()) return INVALID;
    *handle = gpu[index];
    return (int)number(key_of(*handle, "open"), OK);
}

int nvmlDeviceGetName(void *handle, char *out, unsigned size) { return text(handle, "name", out, size); }

static int instance_uuid(int i, int instance, char *out, unsigned size) {
    char key[32];
    snprintf(key, sizeof key, "%d.mig.%d", i, instance);
    return lookup(key, out, size) ? OK : NOT_FOUND;
}

int nvmlDeviceGetUUID(void *handle, char *out, unsigned size) {
    int instance, i = place(handle, &instance);
    return instance < 0 ? text(handle, "uuid", out, size) : instance_uuid(i, instance, out, size);
}

int nvmlDeviceGetPciInfo_v3(void *handle, Pci *pci) {
    memset(pci, 0, sizeof *pci);
    int code = text(handle, "bus", pci->bus_id, sizeof pci->bus_id);
    if (code == OK) sscanf(pci->bus_id, "%x:%x:%x", &pci->domain, &pci->bus, &pci->device);
    return code;
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *out) { return small_figure(handle, "power", "mw", out); }

int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned *out) { return small_figure(handle, "limit", "mw", out); }

#ifndef OLD
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *out) {
    return figure(handle, "energy", "mj", out);
}

int nvmlDeviceGetUtilizationRates(void *handle, unsigned busy[2]) {
    busy[1] = 0;
    return small_figure(handle, "busy", "percent", &busy[0]);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    char value[128];
    for (int i = 0; i < gpus(); i++) {
        if (text(gpu[i], "uuid", value, sizeof value) == OK && !strcmp(value, uuid)) return *handle = gpu[i], OK;
#ifndef NO_MIG_UUID
        for (int k = 0; k < INSTANCES; k++)
            if (instance_uuid(i, k, value, sizeof value) == OK && !strcmp(value, uuid))
                return *handle = &gpu[i][1 + k], OK;
#endif
    }
    return NOT_FOUND;
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
    char value[8];
    if (text(handle, "mig", value, sizeof value) != OK) return UNSUPPORTED;
    *current = *pending = (unsigned)atoi(value);
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
    (void)handle;
    *count = INSTANCES;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **instance) {
    char value[128];
    int parent_instance, i = place(handle, &parent_instance);
    if (i < 0 || index >= INSTANCES || instance_uuid(i, (int)index, value, sizeof value) != OK) return NOT_FOUND;
    *instance = &gpu[i][1 + index];
    return OK;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *handle, void **parent) {
    int instance, i = place(handle, &instance);
    if (i < 0 || instance < 0) return INVALID;
    *parent = gpu[i];
    return OK;
}
#endif
