//! Dense products by cuBLASLt, where it is installed and wanted.
//!
//! It chooses an algorithm by the sizes, so that the bits of a row depend on how many share its step: our own kernels are
//! the default. The library is looked for when it is asked for; nothing is linked.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::result;
use cudarc::cublaslt::result::CublasError;
use cudarc::cublaslt::sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
use cudarc::cublaslt::sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA;
use cudarc::cublaslt::sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
use cudarc::cublaslt::sys::cudaDataType::{CUDA_R_16BF, CUDA_R_32F};
use cudarc::cublaslt::sys::{
    self, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
};
use cudarc::driver::sys::CUstream;

use crate::ops::OpError;
use crate::ops::launch::Address;

/// The library, with what it was asked before.
pub(super) struct Library {
    handle: cublasLtHandle_t,
    workspace: Address,
    plans: Mutex<HashMap<[u32; 3], Plan>>,
}

/// How a product of certain sizes is computed.
struct Plan {
    product: cublasLtMatmulDesc_t,
    weights: cublasLtMatrixLayout_t,
    rows: cublasLtMatrixLayout_t,
    result: cublasLtMatrixLayout_t,
    algorithm: cublasLtMatmulAlgo_t,
}

// SAFETY: a handle may be used from any thread; descriptors are read only once they are made, under the lock.
#[allow(unsafe_code)]
unsafe impl Send for Library {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Library {}

impl Library {
    /// Bytes of device memory that it works in: what NVIDIA advises for Hopper.
    pub const WORKSPACE_BYTES: usize = 32 << 20;

    /// Looks for the library. The context must be current, and `workspace` stay.
    ///
    /// # Errors
    /// [`OpError::Driver`] if it is not installed or does not start.
    pub fn open(workspace: Address) -> Result<Self, OpError> {
        // SAFETY: looks for the library by name and closes it again.
        #[allow(unsafe_code)]
        let is_there = unsafe { sys::is_culib_present() };
        if !is_there {
            return Err(OpError::Driver {
                op: "cublaslt".to_owned(),
                problem: "libcublasLt was not found; it is part of the CUDA toolkit".to_owned(),
            });
        }
        Ok(Self {
            handle: result::create_handle().map_err(|error| failed(&error))?,
            workspace,
            plans: Mutex::default(),
        })
    }

    /// `y = x · wᵀ` as [`crate::ops::linear_launch`], on `stream`.
    ///
    /// # Errors
    /// [`OpError::Driver`] if the library has no way to do it.
    pub fn multiply(
        &self,
        [x, w, y]: [Address; 3],
        sizes: [u32; 3],
        stream: CUstream,
    ) -> Result<(), OpError> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = match plans.entry(sizes) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(self.plan(sizes).map_err(|error| failed(&error))?),
        };
        let (one, zero) = (1.0f32, 0.0f32);
        let address = |at: Address| at.0 as *mut c_void;
        // SAFETY: descriptors live as long as the library; addresses are the caller's, as for every launch.
        #[allow(unsafe_code)]
        let done = unsafe {
            result::matmul(
                self.handle,
                plan.product,
                ptr::from_ref(&one).cast(),
                ptr::from_ref(&zero).cast(),
                address(w),
                plan.weights,
                address(x),
                plan.rows,
                address(y),
                plan.result,
                address(y),
                plan.result,
                &raw const plan.algorithm,
                address(self.workspace),
                Self::WORKSPACE_BYTES,
                stream.cast(),
            )
        };
        done.map_err(|error| failed(&error))
    }

    /// The library counts by columns: what lies row by row is, to it, transposed. So `yᵀ = w · xᵀ`, where `w` is read as
    /// the transpose of a matrix of `k` rows, and `xᵀ` and `yᵀ` are as they lie.
    fn plan(&self, [m, n, k]: [u32; 3]) -> Result<Plan, CublasError> {
        let product = result::create_matmul_desc(CUBLAS_COMPUTE_32F, CUDA_R_32F)?;
        let layout = |kind, rows: u32, columns: u32| {
            result::create_matrix_layout(kind, rows.into(), columns.into(), rows.into())
        };
        let (weights, rows) = (layout(CUDA_R_16BF, k, n)?, layout(CUDA_R_16BF, k, m)?);
        let result_of = layout(CUDA_R_32F, n, m)?;
        let preference = result::create_matmul_pref()?;
        let (transposed, most) = (CUBLAS_OP_T, Self::WORKSPACE_BYTES);
        // SAFETY: each attribute is given its own type's bytes; the descriptors were just made.
        #[allow(unsafe_code)]
        let found = unsafe {
            result::set_matmul_desc_attribute(
                product,
                CUBLASLT_MATMUL_DESC_TRANSA,
                ptr::from_ref(&transposed).cast(),
                size_of_val(&transposed),
            )?;
            result::set_matmul_pref_attribute(
                preference,
                CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                ptr::from_ref(&most).cast(),
                size_of_val(&most),
            )?;
            let found = result::get_matmul_algo_heuristic(
                self.handle,
                product,
                weights,
                rows,
                result_of,
                result_of,
                preference,
            );
            result::destroy_matmul_pref(preference)?;
            found?
        };
        Ok(Plan {
            product,
            weights,
            rows,
            result: result_of,
            algorithm: found.algo,
        })
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        let plans = self.plans.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: made by `plan` and `open`, given back once; nothing is left to do about a failure here.
        #[allow(unsafe_code)]
        unsafe {
            for plan in plans.values() {
                let _ = result::destroy_matrix_layout(plan.weights);
                let _ = result::destroy_matrix_layout(plan.rows);
                let _ = result::destroy_matrix_layout(plan.result);
                let _ = result::destroy_matmul_desc(plan.product);
            }
            let _ = result::destroy_handle(self.handle);
        }
    }
}

/// `cublasOperation_t`: the matrix is read as its transpose.
const CUBLAS_OP_T: i32 = 1;

fn failed(error: &CublasError) -> OpError {
    OpError::Driver {
        op: "cublaslt".to_owned(),
        problem: error.to_string(),
    }
}
