"""The paper's argument on the emoji teacher: mismatch, scheduler, ablation, with intervals."""
