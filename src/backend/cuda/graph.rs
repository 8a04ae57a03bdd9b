//! CUDA graphs: kernels in a chain, with WHILE and IF nodes, launched as a whole.

use super::device::{Device, check};
use super::launch::{Kernel, Sink};
use crate::error::Result;
use cudarc::driver::sys::{self, CUgraph, CUgraphConditionalNodeType_enum as Condition, CUgraphExec, CUgraphNode};
use std::ffi::c_void;
use std::sync::Arc;

/// A graph that is ready to be launched.
pub(super) struct Graph {
    device: Arc<Device>,
    graph: CUgraph,
    executable: CUgraphExec,
}

// SAFETY: handles of the driver, used with the device's context.
unsafe impl Send for Graph {}

/// A number that a kernel sets and a conditional node reads.
pub(super) type Handle = u64;

/// A chain of nodes in the making.
pub(super) struct Chain<'a> {
    device: &'a Device,
    /// The whole graph, to which handles belong.
    top: CUgraph,
    /// Where nodes go: the whole graph, or the body of a conditional node.
    graph: CUgraph,
    last: Option<CUgraphNode>,
}

impl Graph {
    /// Builds a graph from what `record` puts into it.
    ///
    /// # Errors
    /// What the driver does not like about it.
    pub fn build(device: &Arc<Device>, record: impl FnOnce(&mut Chain) -> Result<()>) -> Result<Self> {
        device.enter()?;
        let (graph, executable) = (std::ptr::null_mut(), std::ptr::null_mut());
        let mut built = Graph { device: device.clone(), graph, executable };
        // SAFETY: pointers to our own fields; the graph lives as long as `built`.
        unsafe {
            check(sys::cuGraphCreate(&mut built.graph, 0), "making a graph")?;
            record(&mut Chain { device, top: built.graph, graph: built.graph, last: None })?;
            let executable = &mut built.executable;
            check(sys::cuGraphInstantiateWithFlags(executable, built.graph, 0), "preparing a graph")?;
        }
        Ok(built)
    }

    /// Puts it on the device's stream.
    pub fn launch(&self) -> Result<()> {
        self.device.enter()?;
        // SAFETY: both live as long as `self`.
        check(unsafe { sys::cuGraphLaunch(self.executable, self.device.stream()) }, "launching a graph")
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: no launch is under way when the stream is through.
        unsafe {
            if self.device.enter().is_ok() && self.device.wait().is_ok() {
                if !self.executable.is_null() {
                    sys::cuGraphExecDestroy(self.executable);
                }
                if !self.graph.is_null() {
                    sys::cuGraphDestroy(self.graph);
                }
            }
        }
    }
}

impl Chain<'_> {
    /// A handle with the value that it has at every launch of the graph.
    pub fn handle(&self, default: u32) -> Result<Handle> {
        let mut handle = 0;
        let flags = sys::CU_GRAPH_COND_ASSIGN_DEFAULT;
        // SAFETY: pointer to a local; the graph is alive.
        let result = unsafe {
            sys::cuGraphConditionalHandleCreate(&mut handle, self.top, self.device.context(), default, flags)
        };
        check(result, "making a graph's condition").map(|()| handle)
    }

    /// Repeats what `record` puts into it while the handle is not 0.
    pub fn repeat_while(&mut self, handle: Handle, record: impl FnOnce(&mut Chain) -> Result<()>) -> Result<()> {
        self.conditional(Condition::CU_GRAPH_COND_TYPE_WHILE, handle, record)
    }

    /// Does what `record` puts into it if the handle is not 0.
    pub fn only_if(&mut self, handle: Handle, record: impl FnOnce(&mut Chain) -> Result<()>) -> Result<()> {
        self.conditional(Condition::CU_GRAPH_COND_TYPE_IF, handle, record)
    }

    fn conditional(
        &mut self,
        kind: Condition,
        handle: Handle,
        record: impl FnOnce(&mut Chain) -> Result<()>,
    ) -> Result<()> {
        // SAFETY: all-zero bytes are a valid value of this structure of integers and pointers; the driver's array of
        // bodies has one element and lives as long as the graph.
        let body = unsafe {
            let mut parameters: sys::CUgraphNodeParams = std::mem::zeroed();
            parameters.type_ = sys::CUgraphNodeType_enum::CU_GRAPH_NODE_TYPE_CONDITIONAL;
            parameters.__bindgen_anon_1.conditional = sys::CUDA_CONDITIONAL_NODE_PARAMS {
                handle,
                type_: kind,
                size: 1,
                phGraph_out: std::ptr::null_mut(),
                ctx: self.device.context(),
            };
            let mut node = std::ptr::null_mut();
            let (before, count) = self.before();
            let no = std::ptr::null();
            check(
                sys::cuGraphAddNode_v2(&mut node, self.graph, before, no, count, &mut parameters),
                "adding a condition to a graph",
            )?;
            self.last = Some(node);
            *parameters.__bindgen_anon_1.conditional.phGraph_out
        };
        record(&mut Chain { device: self.device, top: self.top, graph: body, last: None })
    }

    /// What the next node waits for.
    fn before(&self) -> (*const CUgraphNode, usize) {
        self.last.as_ref().map_or((std::ptr::null(), 0), |last| (std::ptr::from_ref(last), 1))
    }
}

impl Sink for Chain<'_> {
    fn launch(&mut self, kernel: &Kernel, arguments: &mut [*mut c_void]) -> Result<()> {
        let parameters = sys::CUDA_KERNEL_NODE_PARAMS {
            func: kernel.function,
            gridDimX: kernel.grid.0,
            gridDimY: kernel.grid.1,
            gridDimZ: 1,
            blockDimX: kernel.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: kernel.shared,
            kernelParams: arguments.as_mut_ptr(),
            extra: std::ptr::null_mut(),
            kern: std::ptr::null_mut(),
            ctx: self.device.context(),
        };
        let mut node = std::ptr::null_mut();
        let (before, count) = self.before();
        // SAFETY: the arguments are those of the kernel; the driver copies them before it returns.
        let result = unsafe { sys::cuGraphAddKernelNode_v2(&mut node, self.graph, before, count, &parameters) };
        if result != sys::CUresult::CUDA_SUCCESS {
            check(result, &format!("adding the kernel {} to a graph", kernel.name))?;
        }
        self.last = Some(node);
        Ok(())
    }
}
