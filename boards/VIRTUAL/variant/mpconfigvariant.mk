# Nothing beyond mpconfigvariant.h; the toolchain names the manifest.
