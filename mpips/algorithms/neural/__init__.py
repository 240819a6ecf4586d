"""Deep networks as Project Adam trains them (Chilimbi et al. 2014); its modules are imported one by one, as some take
long.
"""
