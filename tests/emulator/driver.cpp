// The part of the CUDA driver's and of NVRTC's interface that the program uses, on a CPU. "Machine code" is a shared
// library that the C++ compiler makes of the kernels; launches run at once. Device memory ends where a page without
// access begins, so that a kernel that reads or writes beyond an array stops there and then.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <elf.h>
#include <map>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

typedef int Result;
static std::mutex lock;
static std::map<unsigned long long, std::pair<char*, size_t>> memory;

struct Function {
    void (*launch)(const unsigned*, unsigned, unsigned, void**);
    int (*sizes)(size_t*);
};
struct Module {
    void* library;
    std::map<std::string, Function> functions;
};
struct Attribute {
    int id, pad;
    unsigned cluster[16];
};
struct Launch {
    unsigned grid[3], block[3], shared;
    void* stream;
    Attribute* attributes;
    unsigned count;
};
struct Graph;
struct Node {
    Function* function = nullptr; // of a kernel
    unsigned grid[2], threads, shared;
    std::vector<std::vector<char>> arguments;
    Graph* body = nullptr; // of a condition
    unsigned* condition = nullptr;
    bool repeats = false;
};
struct Graph {
    std::vector<Node*> nodes;
    std::vector<std::pair<unsigned*, unsigned>> defaults;
};

static void run(Graph* graph)
{
    for (auto& [at, value] : graph->defaults) *at = value;
    for (Node* node : graph->nodes) {
        if (node->function) {
            std::vector<void*> pointers;
            for (auto& argument : node->arguments) pointers.push_back(argument.data());
            node->function->launch(node->grid, node->threads, node->shared, pointers.data());
        } else if (node->repeats) {
            while (*node->condition) run(node->body);
        } else if (*node->condition) {
            run(node->body);
        }
    }
}

extern "C" {
Result cuInit(unsigned) { return 0; }
Result cuDriverGetVersion(int* version)
{
    const char* wanted = getenv("VERLET_EMULATED_DRIVER");
    *version = wanted ? atoi(wanted) : 13000;
    return 0;
}
Result cuDeviceGetCount(int* count) { *count = 1; return 0; }
Result cuDeviceGet(int* device, int) { *device = 0; return 0; }
// Capability 99.0: it can do everything, and what is compiled for it is kept apart from every real device's.
Result cuDeviceGetAttribute(int* value, int attribute, int)
{
    *value = attribute == 16 ? 132 : attribute == 75 ? 99 : attribute == 97 ? 232 * 1024 : attribute == 120 ? 1 : 0;
    return 0;
}
Result cuDeviceGetName(char* name, int length, int) { snprintf(name, length, "emulator"); return 0; }
Result cuDeviceTotalMem_v2(size_t* bytes, int) { *bytes = 1ull << 30; return 0; }
Result cuDevicePrimaryCtxRetain(void** context, int) { *context = (void*)1; return 0; }
Result cuDevicePrimaryCtxRelease_v2(int) { return 0; }
Result cuCtxSetCurrent(void*) { return 0; }
Result cuStreamCreate(void** stream, unsigned) { *stream = (void*)1; return 0; }
Result cuStreamDestroy_v2(void*) { return 0; }
Result cuStreamSynchronize(void*) { return 0; }
Result cuGetErrorString(int, const char** text) { *text = "an error of the emulator"; return 0; }
Result cuMemGetInfo_v2(size_t* free, size_t* total)
{
    std::lock_guard<std::mutex> guard(lock);
    *free = *total = 1ull << 30;
    for (auto& taken : memory) *free -= taken.second.second;
    return 0;
}

Result cuMemAlloc_v2(unsigned long long* pointer, size_t bytes)
{
    size_t page = sysconf(_SC_PAGESIZE), usable = (bytes + 15) / 16 * 16, whole = (usable + page - 1) / page * page;
    char* base = (char*)mmap(nullptr, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return 2;
    mprotect(base + whole, page, PROT_NONE);
    memset(base, 0xff, whole);
    std::lock_guard<std::mutex> guard(lock);
    *pointer = (unsigned long long)(base + whole - usable);
    memory[*pointer] = {base, whole + page};
    return 0;
}
Result cuMemFree_v2(unsigned long long pointer)
{
    std::lock_guard<std::mutex> guard(lock);
    auto found = memory.find(pointer);
    if (found == memory.end()) return 1;
    munmap(found->second.first, found->second.second);
    memory.erase(found);
    return 0;
}
// The host's pages are as good as the device's, with no access behind them either.
Result cuMemAllocHost_v2(void** pointer, size_t bytes) { return cuMemAlloc_v2((unsigned long long*)pointer, bytes); }
Result cuMemFreeHost(void* pointer) { return cuMemFree_v2((unsigned long long)pointer); }
Result cuMemsetD8Async(unsigned long long to, unsigned char value, size_t bytes, void*) { memset((void*)to, value, bytes); return 0; }
Result cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, void*) { memcpy((void*)to, from, bytes); return 0; }
Result cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t bytes, void*) { memcpy(to, (void*)from, bytes); return 0; }

Result cuModuleLoadData(Module** module, const void* image)
{
    // The section headers are the last thing in the file.
    const Elf64_Ehdr* header = (const Elf64_Ehdr*)image;
    size_t bytes = header->e_shoff + (size_t)header->e_shnum * header->e_shentsize;
    char name[] = "/tmp/verlet-emulator-XXXXXX";
    int file = mkstemp(name);
    if (file < 0 || write(file, image, bytes) != (ssize_t)bytes) return 200;
    close(file);
    void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    unlink(name);
    if (!library) {
        fprintf(stderr, "emulator: %s\n", dlerror());
        return 200;
    }
    *module = new Module{library, {}};
    return 0;
}
Result cuModuleUnload(Module* module)
{
    dlclose(module->library);
    delete module;
    return 0;
}
Result cuModuleGetFunction(Function** function, Module* module, const char* name)
{
    Function found;
    found.launch = (decltype(found.launch))dlsym(module->library, (std::string("emulator_launch_") + name).c_str());
    found.sizes = (decltype(found.sizes))dlsym(module->library, (std::string("emulator_sizes_") + name).c_str());
    if (!found.launch || !found.sizes) return 500;
    module->functions[name] = found;
    *function = &module->functions[name];
    return 0;
}
Result cuFuncSetAttribute(Function*, int, int) { return 0; }
Result cuLaunchKernel(Function* function, unsigned gx, unsigned gy, unsigned, unsigned threads, unsigned, unsigned,
                      unsigned shared, void*, void** arguments, void**)
{
    unsigned grid[2] = {gx, gy};
    if (gx == 0 || gy == 0 || threads == 0 || threads > 1024) return 1;
    function->launch(grid, threads, shared, arguments);
    return 0;
}

// The emulator keeps all blocks whose threads wait for the grid; a kernel need not say that they do.
Result cuLaunchCooperativeKernel(Function* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                                 unsigned shared, void* stream, void** arguments)
{
    return cuLaunchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, arguments, nullptr);
}
// Of large clusters as many as soon have run, one thread after the other.
Result cuOccupancyMaxActiveClusters(int* clusters, Function*, const Launch* launch)
{
    *clusters = launch->attributes->cluster[0] > 8 ? 3 : 15;
    return 0;
}

Result cuGraphCreate(Graph** graph, unsigned) { *graph = new Graph; return 0; }
Result cuGraphConditionalHandleCreate(unsigned long long* handle, Graph* graph, void*, unsigned value, unsigned)
{
    unsigned* at = new unsigned(value);
    graph->defaults.push_back({at, value});
    *handle = (unsigned long long)at;
    return 0;
}
struct KernelParameters {
    Function* function;
    unsigned gx, gy, gz, bx, by, bz, shared;
    void** arguments;
};
Result cuGraphAddKernelNode_v2(Node** out, Graph* graph, Node* const* before, size_t count, const KernelParameters* given)
{
    // Nodes run in the order in which they are added: each must wait for the one before it.
    if (count != (graph->nodes.empty() ? 0u : 1u) || (count == 1 && *before != graph->nodes.back())) return 1;
    Node* node = new Node;
    node->function = given->function;
    node->grid[0] = given->gx;
    node->grid[1] = given->gy;
    node->threads = given->bx;
    node->shared = given->shared;
    size_t sizes[64];
    int arguments = given->function->sizes(sizes);
    for (int n = 0; n < arguments; n++) {
        const char* from = (const char*)given->arguments[n];
        node->arguments.emplace_back(from, from + sizes[n]);
    }
    graph->nodes.push_back(node);
    *out = node;
    return 0;
}
struct ConditionParameters {
    int type, reserved[3];
    unsigned long long handle;
    int kind;
    unsigned size;
    Graph** bodies;
    void* context;
};
Result cuGraphAddNode_v2(Node** out, Graph* graph, Node* const* before, const void*, size_t count, ConditionParameters* given)
{
    const int CONDITIONAL = 13;
    if (given->type != CONDITIONAL || given->size != 1) return 1;
    if (count != (graph->nodes.empty() ? 0u : 1u) || (count == 1 && *before != graph->nodes.back())) return 1;
    Node* node = new Node;
    node->condition = (unsigned*)given->handle;
    node->repeats = given->kind == 1;
    node->body = new Graph;
    given->bodies = &node->body;
    graph->nodes.push_back(node);
    *out = node;
    return 0;
}
static bool reads(const Graph* graph, const unsigned* condition)
{
    for (const Node* node : graph->nodes)
        if (node->condition == condition || (node->body && reads(node->body, condition))) return true;
    return false;
}
// As the driver does, takes no graph with a condition that belongs to no node.
Result cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long)
{
    for (auto& handle : graph->defaults)
        if (!reads(graph, handle.first)) return 1;
    *executable = graph;
    return 0;
}
Result cuGraphLaunch(Graph* graph, void*) { run(graph); return 0; }
Result cuGraphExecDestroy(Graph*) { return 0; }
static void destroy(Graph* graph)
{
    for (Node* node : graph->nodes) {
        if (node->body) destroy(node->body);
        delete node;
    }
    for (auto& handle : graph->defaults) delete handle.first;
    delete graph;
}
Result cuGraphDestroy(Graph* graph) { destroy(graph); return 0; }

// NVRTC.
struct Source {
    std::string text, log;
    std::vector<char> code;
};
Result nvrtcVersion(int* major, int* minor) { *major = 12; *minor = 0; return 0; }
const char* nvrtcGetErrorString(int) { return "the C++ compiler failed"; }
Result nvrtcCreateProgram(Source** out, const char* text, const char*, int, const char* const*, const char* const*)
{
    *out = new Source{text, "", {}};
    return 0;
}
Result nvrtcCompileProgram(Source* source, int count, const char* const* options)
{
    char folder[] = "/tmp/verlet-emulator-XXXXXX";
    if (!mkdtemp(folder)) return 1;
    std::string at = folder, command = "${CXX:-c++} -std=c++17 -O2 -march=haswell -ffp-contract=off -shared -fPIC -w";
    // What is inline in C++ is one thing in a process to GCC, unless it is told otherwise: each library is to have its own threads and its
    // own shared memory, so that tests run side by side. Other compilers do not know the option, nor need it.
    command += " $(${CXX:-c++} -fno-gnu-unique -E -x c++ /dev/null > /dev/null 2>&1 && echo -fno-gnu-unique)";
    for (int n = 0; n < count; n++)
        if (strncmp(options[n], "-D", 2) == 0) command += std::string(" ") + options[n];
    command += " -o " + at + "/kernels.so " + at + "/kernels.cpp > " + at + "/log 2>&1";
    FILE* file = fopen((at + "/kernels.cpp").c_str(), "w");
    if (!file) return 1;
    fprintf(file, "#include \"%s\"\n%s\n", EMULATOR_HEADER, source->text.c_str());
    // Every kernel that the switches leave in: its name stands before the first parenthesis after the bounds.
    const std::string& text = source->text;
    std::string mark = "extern \"C\" __global__ void";
    for (size_t begin = text.find(mark); begin != std::string::npos; begin = text.find(mark, begin + 1)) {
        size_t from = begin + mark.size(), bounds = text.find("__launch_bounds__", from), open = text.find('(', from);
        const char* blocks = text.substr(from, open - from).find("CLUSTERED") == std::string::npos ? "1" : "CLUSTER";
        if (bounds != std::string::npos && bounds < open) {
            int depth = 0;
            for (from = open; from < text.size(); from++) {
                depth += text[from] == '(' ? 1 : text[from] == ')' ? -1 : 0;
                if (depth == 0) break;
            }
            from++;
            open = text.find('(', from);
        }
        while (isspace(text[from])) from++;
        std::string name = text.substr(from, open - from);
        if (name == "bath") fprintf(file, "#if LANGEVIN\nEMULATED(%s, 1)\n#endif\n", name.c_str());
        else fprintf(file, "EMULATED(%s, %s)\n", name.c_str(), blocks);
    }
    fclose(file);
    int status = system(command.c_str());
    auto read = [&](const char* name, auto& to) {
        FILE* from = fopen((at + name).c_str(), "rb");
        if (!from) return;
        char buffer[65536];
        for (size_t n; (n = fread(buffer, 1, sizeof buffer, from)) > 0;) to.insert(to.end(), buffer, buffer + n);
        fclose(from);
    };
    read("/log", source->log);
    read("/kernels.so", source->code);
    for (const char* name : {"/log", "/kernels.so", "/kernels.cpp"}) unlink((at + name).c_str());
    rmdir(folder);
    return status == 0 ? 0 : 6;
}
Result nvrtcDestroyProgram(Source** source) { delete *source; return 0; }
Result nvrtcGetProgramLogSize(Source* source, size_t* bytes) { *bytes = source->log.size() + 1; return 0; }
Result nvrtcGetProgramLog(Source* source, char* to) { strcpy(to, source->log.c_str()); return 0; }
Result nvrtcGetCUBINSize(Source* source, size_t* bytes) { *bytes = source->code.size(); return 0; }
Result nvrtcGetCUBIN(Source* source, char* to) { memcpy(to, source->code.data(), source->code.size()); return 0; }
}
