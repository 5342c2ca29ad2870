# Flags of every target. Kernels get their instruction-set flags by file suffix in src/kernels/CMakeLists.txt.
add_compile_options(-Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-Wno-maybe-uninitialized)  # false alarms in GCC 12 about moved-from intrusive pointers
endif()
if(ZT_WARNINGS_AS_ERRORS)
    add_compile_options(-Werror)
endif()

find_program(CCACHE ccache)
if(CCACHE)
    # A precompiled header is part of the hash; its time stamp is not.
    set(CMAKE_CXX_COMPILER_LAUNCHER
        ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
        ${CCACHE})
    if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
        add_compile_options(-fpch-preprocess)
    endif()
endif()

find_program(MOLD mold)
if(MOLD)
    add_link_options(-fuse-ld=mold)
endif()
