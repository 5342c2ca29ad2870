# `make dist`: an archive whose program finds its models beside it and LibTorch in lib/. FFmpeg, ICU
# and the picture libraries come from the distribution. A CUDA wheel is too large to carry: that program looks for it
# where it was built.
install(TARGETS zoetrope RUNTIME DESTINATION .)
if(EXISTS ${ZT_TORCH_DIR}/lib/libtorch_cuda.so OR EXISTS ${ZT_TORCH_DIR}/lib/libtorch_hip.so)
    set_target_properties(zoetrope PROPERTIES INSTALL_RPATH "${ZT_TORCH_DIR}/lib;$ORIGIN/lib")
else()
    set_target_properties(zoetrope PROPERTIES INSTALL_RPATH "$ORIGIN/lib")
    file(GLOB libtorch ${ZT_TORCH_DIR}/lib/libtorch.so ${ZT_TORCH_DIR}/lib/libtorch_cpu.so
         ${ZT_TORCH_DIR}/lib/libc10.so ${ZT_TORCH_DIR}/lib/libgomp*.so*)
    install(FILES ${libtorch} DESTINATION lib)
endif()
if(TARGET openvino::openvino)
    install(DIRECTORY ${openvino_dir}/libs/ DESTINATION lib)
    install(DIRECTORY ${openvino_dir}/ DESTINATION licenses/openvino PATTERN include EXCLUDE PATTERN libs EXCLUDE)
    if(EXISTS ${CMAKE_BINARY_DIR}/pose-models)
        install(DIRECTORY ${CMAKE_BINARY_DIR}/pose-models DESTINATION .)
    endif()
endif()
install(DIRECTORY models docs examples DESTINATION .)
install(DIRECTORY tools/verify DESTINATION tools)
install(FILES README.md LICENSE DESTINATION .)

set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_FILE_NAME zoetrope-${PROJECT_VERSION}-linux-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_STRIP_FILES ON)
set(CPACK_THREADS 0)
include(CPack)
