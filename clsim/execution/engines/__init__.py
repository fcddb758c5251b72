"""Where the runs of a study execute: in processes of this machine, on a Ray cluster, or as Slurm jobs."""
