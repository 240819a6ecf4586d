from hypothesis import settings

# kernels compile at their first call
settings.register_profile("kernels", deadline=None, print_blob=True)
settings.load_profile("kernels")
