// Files and folders that are complete or absent: written under a hidden name beside their target,
// then renamed.
//
// Devices and pipes are no targets: a file would take their place.
// Each owns what is hidden until publish(); the destructor removes what was not published. What a
// process that was killed left behind, remove_stale() removes. One thread per object.
// Errors: io, with the path and the system's reason.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace zoetrope {

// Makes the missing folders above a file; the destructor removes those of them that are still
// empty.
class ParentFolders {
public:
    explicit ParentFolders(const std::filesystem::path& file);
    ~ParentFolders() { remove_empty(); }
    ParentFolders(const ParentFolders&) = delete;
    ParentFolders& operator=(const ParentFolders&) = delete;

private:
    void remove_empty();

    std::vector<std::filesystem::path> created_;  // outermost first
};

class PartialFile {
public:
    // Creates ".<name>.partial-<owner>-<n>" in the target's folder, which must exist. The owner is
    // this process on this machine.
    explicit PartialFile(std::filesystem::path target);
    ~PartialFile();
    PartialFile(const PartialFile&) = delete;
    PartialFile& operator=(const PartialFile&) = delete;

    const std::filesystem::path& path() const { return path_; }
    const std::filesystem::path& target() const { return target_; }

    // Another name in the same folder.
    void rename_target(std::filesystem::path target);

    // Brings the bytes to the disk and gives the file its name, replacing an older one.
    void publish();

private:
    std::filesystem::path target_;
    std::filesystem::path path_;  // empty once published
};

// Writes a small file, complete or not at all; into a device or a pipe as it comes.
void write_whole_file(const std::filesystem::path& path, std::string_view text);

class PartialFolder {
public:
    // Creates a hidden folder of the same kind beside the target, whose parent must exist. The
    // target may be there if it is an empty folder.
    explicit PartialFolder(std::filesystem::path target);
    ~PartialFolder();
    PartialFolder(const PartialFolder&) = delete;
    PartialFolder& operator=(const PartialFolder&) = delete;

    // Where files are written until publish().
    const std::filesystem::path& path() const { return path_; }

    // Brings everything in it to the disk and gives the folder its name.
    void publish();

private:
    std::filesystem::path target_;
    std::filesystem::path path_;  // empty once published
};

// Whether a file or folder of this name is a hidden one of these, of any target and owner.
bool is_partial(std::string_view name);

// Removes the hidden files and folders of `target`, or of a numbered sequence of that name, that a
// process of this user on this machine has left and that is no more. Others stay; so does what
// cannot be removed. Throws nothing.
void remove_stale(const std::filesystem::path& target);

// Makes renames inside the folder of `file` durable.
void sync_folder_of(const std::filesystem::path& file);

}  // namespace zoetrope
