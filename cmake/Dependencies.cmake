# The libraries of other people, as imported targets. Versions are the minimum that is tested (Debian 12).
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(nlohmann_json 3.11 REQUIRED)
find_package(fmt 9.1 REQUIRED)
find_package(spdlog 1.10 REQUIRED)
find_package(CLI11 2.1 REQUIRED)
find_package(GTest 1.12 REQUIRED)
pkg_check_modules(FFMPEG REQUIRED IMPORTED_TARGET
    libavcodec>=59.37 libavformat>=59.27 libavutil>=57.28 libswscale>=6.7 libswresample>=4.7)
pkg_check_modules(PICTURES REQUIRED IMPORTED_TARGET libpng>=1.6.37 libjpeg>=2.1 libwebp>=1.2 libwebpdemux>=1.2)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl>=7.85)
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto>=3.0)
pkg_check_modules(ICU REQUIRED IMPORTED_TARGET icu-uc>=72 icu-i18n>=72)

# LibTorch out of a Python wheel. find_package(Torch) is not used: its CUDA variant demands the whole CUDA toolkit,
# while code that calls only ATen needs nothing but the libraries. The headers come after the system's own (-idirafter),
# since the wheel carries a copy of fmt that must not shadow Debian's.
if(ZT_WITH_TORCH)
    if(NOT ZT_TORCH_DIR)
        set(ZT_TORCH_DIR ${CMAKE_SOURCE_DIR}/.venv/torch)  # where `make setup` puts it
    endif()
    set(version_header ${ZT_TORCH_DIR}/include/torch/headeronly/version.h)
    if(NOT EXISTS ${version_header})
        message(FATAL_ERROR "ZT_TORCH_DIR is '${ZT_TORCH_DIR}', which has no include/torch/headeronly/version.h. "
                            "Run `make setup`, or give the torch folder of an installed wheel: -DZT_TORCH_DIR=...")
    endif()
    file(STRINGS ${version_header} lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
    string(REGEX REPLACE "[^0-9;]" "" lines "${lines}")
    list(JOIN lines "." ZT_TORCH_VERSION)
    if(ZT_TORCH_VERSION VERSION_LESS 2.13)
        message(FATAL_ERROR "${ZT_TORCH_DIR} is torch ${ZT_TORCH_VERSION}: 2.13.0 or newer is needed.")
    endif()
    message(STATUS "LibTorch ${ZT_TORCH_VERSION} in ${ZT_TORCH_DIR}")

    add_library(torch::torch INTERFACE IMPORTED)
    target_compile_options(torch::torch INTERFACE "SHELL:-idirafter ${ZT_TORCH_DIR}/include")
    set(lib ${ZT_TORCH_DIR}/lib)  # whole paths: CMake writes the build's run path from them
    target_link_libraries(torch::torch INTERFACE ${lib}/libtorch.so ${lib}/libtorch_cpu.so ${lib}/libc10.so)
    # The OpenMP run time that LibTorch itself uses.
    add_library(torch::openmp INTERFACE IMPORTED)
    if(EXISTS ${lib}/libgomp.so.1)
        target_link_libraries(torch::openmp INTERFACE ${lib}/libgomp.so.1)
    else()
        target_link_libraries(torch::openmp INTERFACE gomp)
    endif()
    foreach(device cuda hip)
        if(EXISTS ${lib}/libtorch_${device}.so)
            # Nothing in our code names a symbol of these two; they register the device's operators when they are loaded.
            target_link_libraries(torch::torch INTERFACE
                -Wl,--no-as-needed ${lib}/libtorch_${device}.so ${lib}/libc10_${device}.so -Wl,--as-needed)
            # The device's libraries lie in wheels of their own beside torch; the program finds them through
            # libtorch_${device}'s own run path, the linker needs no look at them.
            target_link_options(torch::torch INTERFACE LINKER:--allow-shlib-undefined)
        endif()
    endforeach()
endif()

# OpenVINO out of its Python wheel, as `make setup` unpacks it. Its own CMake package is not used: it demands every
# frontend and plugin of the wheel. Where it is not found, openvino::openvino is not defined.
if(ZT_WITH_OPENVINO)
    set(openvino_dir ${ZT_OPENVINO_DIR})
    if(NOT openvino_dir)
        set(openvino_dir ${CMAKE_SOURCE_DIR}/.venv/openvino)
    endif()
    file(GLOB openvino_library ${openvino_dir}/libs/libopenvino.so.*)
    if(openvino_library AND EXISTS ${openvino_dir}/include/openvino/openvino.hpp)
        add_library(openvino::openvino INTERFACE IMPORTED)
        target_include_directories(openvino::openvino SYSTEM INTERFACE ${openvino_dir}/include)
        target_link_libraries(openvino::openvino INTERFACE ${openvino_library})
        message(STATUS "OpenVINO in ${openvino_dir}")
    elseif(ZT_OPENVINO_DIR)
        message(FATAL_ERROR "ZT_OPENVINO_DIR is '${ZT_OPENVINO_DIR}', which has no libs/libopenvino.so.* or no "
                            "include/openvino/openvino.hpp. Run `make setup`, or give the openvino folder of a wheel.")
    else()
        message(STATUS "OpenVINO was not found: zoetrope preprocess will refuse (make setup fetches it)")
    endif()
endif()
