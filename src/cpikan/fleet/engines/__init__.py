"""Where the tasks of a batch run: in this process, or on workers of Dask."""
