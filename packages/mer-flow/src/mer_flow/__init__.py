"""mer-flow: annotation sheets and frames become one HDF5 store of onset-to-apex optical flow.

Nothing heavy is imported here; import the module you need (`mer_flow.store.reader`, `mer_flow.views`, ...).
"""

__version__ = "0.2.0"
